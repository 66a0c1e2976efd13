"""The standard service for operations: each method translates, waits, and translates back."""

import base64
from typing import Any, Final

import grpc
from google.longrunning import operations_pb2 as pb
from google.longrunning.operations_pb2_grpc import OperationsServicer
from google.protobuf.empty_pb2 import Empty

from dispatch.errors import InvalidArgument
from dispatch.operations import OperationKey
from server import names
from server.call_record import CURRENT
from server.deadline import Deadline, with_margin
from server.gate import Gate
from server.operation_messages import to_operation
from server.ports import Fleet, Operations
from server.settings import ServerSettings

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_PAGE: Final = 50
LARGEST_PAGE: Final = 1000
_NEWEST: Final = 1 << 62


class OperationsService(OperationsServicer):  # type: ignore[misc] # published without types
    """Looks after what `SubmitPrediction` has accepted.

    Args:
        settings: deadlines.
        operations: where they are.
        fleet: which models there are.
        gate: closed when the server is about to stop, so that waits end.
    """

    def __init__(
        self, settings: ServerSettings, *, operations: Operations, fleet: Fleet, gate: Gate
    ) -> None:
        self._settings = settings
        self._operations = operations
        self._fleet = fleet
        self._gate = gate

    async def GetOperation(self, request: pb.GetOperationRequest, context: Context) -> pb.Operation:
        """Tell how far an operation has come."""
        key = await self._key(request.name, context)
        operation = await self._operations.get(key, timeout_s=self._timeout_s(context))
        return to_operation(operation)

    async def WaitOperation(
        self, request: pb.WaitOperationRequest, context: Context
    ) -> pb.Operation:
        """Wait until an operation has ended, or until the time is over."""
        key = await self._key(request.name, context)
        timeout_s = self._timeout_s(context)
        if request.HasField("timeout"):
            wished_s = request.timeout.seconds + request.timeout.nanos / 1e9
            timeout_s = min(timeout_s, max(0.0, wished_s))
        operation = await self._gate.unless_closed(self._operations.wait(key, timeout_s=timeout_s))
        return to_operation(operation)

    async def ListOperations(
        self, request: pb.ListOperationsRequest, context: Context
    ) -> pb.ListOperationsResponse:
        """List the caller's operations: of one model, or of all, model after model."""
        if request.filter:
            raise InvalidArgument("filter", "filters are not supported")
        count = page_size(request.page_size)
        models = self._models(request.name)
        model, before = _parse_token(request.page_token)
        timeout_s = self._timeout_s(context)
        response = pb.ListOperationsResponse()
        used_bytes = 0
        for each in models:
            if each < model:
                continue
            page = await self._operations.page(
                each,
                CURRENT.get().caller,
                before=before if each == model else _NEWEST,
                count=count - len(response.operations),
                used_bytes=used_bytes,
                timeout_s=timeout_s,
            )
            response.operations.extend(map(to_operation, page.operations))
            used_bytes = page.used_bytes
            if page.next_before is not None:
                response.next_page_token = _token(each, page.next_before)
                break
        return response

    async def CancelOperation(self, request: pb.CancelOperationRequest, context: Context) -> Empty:
        """End an operation that is no longer wanted."""
        key = await self._key(request.name, context)
        await self._operations.cancel(key, timeout_s=self._timeout_s(context))
        return Empty()

    async def DeleteOperation(self, request: pb.DeleteOperationRequest, context: Context) -> Empty:
        """Forget an operation, and what came of it."""
        key = await self._key(request.name, context)
        await self._operations.delete(key, timeout_s=self._timeout_s(context))
        return Empty()

    async def _key(self, name: str, context: Context) -> OperationKey:
        model, operation_id = names.parse_operation(name)
        call = CURRENT.get()
        key = OperationKey(model, operation_id, call.caller)
        if model == names.ANY:
            key = await self._operations.find(
                operation_id, call.caller, timeout_s=self._timeout_s(context)
            )
        call.model = key.model
        return key

    def _timeout_s(self, context: Context) -> float:
        return with_margin(Deadline(self._settings, context).remaining_s())

    def _models(self, parent: str) -> list[str]:
        if parent in {"", names.ANY_MODEL}:
            return sorted(view.card.name for view in self._fleet.listed())
        model = names.parse_model(parent)
        CURRENT.get().model = model
        return [self._fleet.get(model).card.name]


def page_size(wanted: int) -> int:
    """Return how many a page may have; 0 means the default, and too many the most.

    Raises:
        InvalidArgument: it is negative.
    """
    if wanted < 0:
        raise InvalidArgument("page_size", f"page_size is {wanted}; it must not be negative")
    return min(wanted or DEFAULT_PAGE, LARGEST_PAGE)


def _token(model: str, before: int) -> str:
    return base64.urlsafe_b64encode(f"{model} {before}".encode()).decode()


def _parse_token(token: str) -> tuple[str, int]:
    if not token:
        return "", _NEWEST
    try:
        model, before = base64.urlsafe_b64decode(token).decode().split(" ")
        return model, int(before)
    except ValueError:
        raise InvalidArgument("page_token", "page_token is not one of this server") from None
