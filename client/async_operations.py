"""Submit now, fetch later: the part of the asyncio client that does it."""

from collections.abc import AsyncGenerator

from google.longrunning import operations_pb2  # type: ignore[import-untyped, unused-ignore]

from . import operation_wire
from .async_connection import Connection
from .errors import DeadlineExceeded, Retryable
from .images import Image
from .operation_wire import DEFAULT_WAIT_TIMEOUT_S
from .patience import ANSWER_S, Vigil
from .results import Operation
from .wire import DEFAULT_TIMEOUT_S, DEFAULT_TOP_K


class OperationMethods:
    """Operations are named `models/{model}/operations/{id}` and survive this client."""

    _connection: Connection

    async def submit(
        self,
        image: Image,
        *,
        model: str = "",
        top_k: int = DEFAULT_TOP_K,
        include_scores: bool = False,
        request_id: str = "",
        synced: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Operation:
        """Have one image accepted now; `wait` or `operation` fetches its labels later.

        Tried again while the server is unavailable or overloaded and the timeout
        allows it. After an error it may have been accepted all the same: submit
        it again with the `request_id` of the error.

        Args:
            image: encoded bytes, or the path of a file.
            model: empty: the only one served, or the server's default.
            top_k: how many labels. Range [1, 1000].
            include_scores: whether to return the score of every class.
            request_id: a UUID; the same one with the same content is the same
                operation, however often it is submitted. Made here if empty.
            synced: whether to be answered only when a power cut cannot lose it
                any more; takes up to a second longer.
            timeout_s: longest wait, retries included.

        Raises:
            DespachoError: one of its subclasses.
        """
        request = operation_wire.submit_request(
            await self._connection.load(image),
            model=model,
            top_k=top_k,
            include_scores=include_scores,
            request_id=request_id,
            synced=synced,
        )
        return operation_wire.operation(
            await self._connection.call_patiently(
                self._connection.predictions.SubmitPrediction,
                request,
                timeout_s=timeout_s,
                request_id=request.request_id,
            )
        )

    async def operation(self, name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Operation:
        """Return an operation as it is now.

        Raises:
            NotFound: there is none of this name, or no more.
        """
        request = operations_pb2.GetOperationRequest(name=name)
        return operation_wire.operation(
            await self._connection.call(
                self._connection.operations.GetOperation, request, timeout_s=timeout_s
            )
        )

    async def wait(self, name: str, *, timeout_s: float = DEFAULT_WAIT_TIMEOUT_S) -> Operation:
        """Wait until an operation has ended, and return it.

        Goes on while the server is unavailable, such as when it is restarted. When
        the time is over, the operation is returned as it is then: see `is_done`.

        Args:
            name: of the operation.
            timeout_s: longest wait. A server that does not even say how things are
                may use 10 s more.

        Raises:
            NotFound: there is none of this name, or no more.
            Retryable: the server was unavailable when the time was over.
            DespachoError: another of its subclasses.
        """
        vigil = Vigil(self._connection.patience(timeout_s))
        while share_s := vigil.share_s():
            try:
                operation = operation_wire.operation(
                    await self._connection.call(
                        self._connection.operations.WaitOperation,
                        operation_wire.wait_request(name, share_s),
                        timeout_s=share_s + ANSWER_S,
                    )
                )
            except (Retryable, DeadlineExceeded) as failure:
                await self._connection.rest(vigil.pause_s(failure))
            else:
                if operation.is_done:
                    return operation
                await self._connection.rest(vigil.pause_s())
        return await self.operation(name, timeout_s=ANSWER_S)

    async def operations(
        self, *, model: str = "", page_size: int = 0, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> AsyncGenerator[Operation, None]:
        """List the caller's operations; pages are fetched as the iterator gets there.

        Args:
            model: empty: all models.
            page_size: operations per call; 0: as many as the server likes.
            timeout_s: longest wait for one page.
        """
        page_token = ""
        while True:
            page = await self._connection.call(
                self._connection.operations.ListOperations,
                operation_wire.list_request(model, page_size=page_size, page_token=page_token),
                timeout_s=timeout_s,
            )
            for message in page.operations:
                yield operation_wire.operation(message)
            if not (page_token := page.next_page_token):
                return

    async def cancel(self, name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Let an operation end with the error `Cancelled`, unless it ends before that.

        Raises:
            NotFound: there is none of this name, or no more.
        """
        await self._connection.call(
            self._connection.operations.CancelOperation,
            operations_pb2.CancelOperationRequest(name=name),
            timeout_s=timeout_s,
        )

    async def delete(self, name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Forget an operation and its result.

        Raises:
            NotFound: there is none of this name, or no more.
        """
        await self._connection.call(
            self._connection.operations.DeleteOperation,
            operations_pb2.DeleteOperationRequest(name=name),
            timeout_s=timeout_s,
        )
