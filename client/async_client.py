"""The asyncio client: the same methods as `sync_client.py`, awaited."""

import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2

from prediction.v1 import prediction_pb2

from . import wire
from .async_admin import Admin
from .async_connection import Connection
from .async_operations import OperationMethods
from .async_sender import Sender
from .cancellation import ends_this_task
from .channel import Access
from .chunks import AsyncChunks, Feed
from .errors import DespachoError
from .images import Image
from .limits import MAX_IMAGE_BYTES
from .results import Health, KeyT, Model, PredictionResult, Priority, StreamOutcome
from .stream_ledger import DEFAULT_STREAM_TIMEOUT_S, FEEDING_SHARE, StreamLedger
from .wire import DEFAULT_TIMEOUT_S, DEFAULT_TOP_K


class AsyncClient(OperationMethods):
    """A connection to a Despacho server, for one event loop.

    Connects at the first call, and again by itself whenever the connection is
    lost. Each method raises what `errors.py` lists; cancelling the task that
    waits cancels the call.

    Args:
        target: `host:port`, `unix:/path`, or another name that gRPC knows.
        api_key: sent with each call; empty: none.
        credentials: for TLS; None: not encrypted.
        allow_insecure_key: send the key unencrypted to another machine, where
            others may read it; otherwise that is a `ValueError`.
        max_image_bytes: the server's limit, when it is not 16 MiB.
        over: a channel to use instead of making one; `target` and the other
            arguments about it are then unused. The client closes it.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        api_key: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        allow_insecure_key: bool = False,
        max_image_bytes: int = MAX_IMAGE_BYTES,
        over: grpc.aio.Channel | None = None,
    ) -> None:
        access = Access(
            credentials=credentials, api_key=api_key, allow_insecure_key=allow_insecure_key
        )
        self._connection = Connection(target, access, max_image_bytes, over)
        self.admin = Admin(self._connection)
        """What an operator may see and do."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel calls in progress and disconnect. Harmless when repeated."""
        await self._connection.close()

    async def predict(
        self,
        image: Image,
        *,
        model: str = "",
        top_k: int = DEFAULT_TOP_K,
        priority: Priority = Priority.NORMAL,
        include_scores: bool = False,
        request_id: str = "",
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> PredictionResult:
        """Label one image.

        Tried again while the server is unavailable or overloaded and the
        timeout allows it.

        Args:
            image: encoded bytes, or the path of a file.
            model: empty: the only one served, or the server's default.
            top_k: how many labels. Range [1, 1000].
            priority: how soon it matters.
            include_scores: whether to return the score of every class.
            request_id: names the request in logs; made here if empty.
            timeout_s: longest wait, retries included.

        Raises:
            DespachoError: one of its subclasses.
        """
        request = wire.predict_request(
            await self._connection.load(image),
            model=model,
            top_k=top_k,
            priority=priority,
            include_scores=include_scores,
            request_id=request_id or wire.new_request_id(),
        )
        return wire.prediction_result(
            await self._connection.call_patiently(
                self._connection.predictions.Predict,
                request,
                timeout_s=timeout_s,
                request_id=request.request_id,
            )
        )

    async def predict_upload(
        self,
        chunks: AsyncChunks,
        *,
        total_bytes: int = 0,
        model: str = "",
        top_k: int = DEFAULT_TOP_K,
        priority: Priority = Priority.NORMAL,
        include_scores: bool = False,
        request_id: str = "",
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> PredictionResult:
        """Label one image that is sent while it is being received or made.

        Tried again by gRPC while the server is unavailable; not while it is
        overloaded, as the chunks are gone. What they raise is raised here, and
        nothing is labelled.

        Args:
            chunks: a binary file, or bytes in parts of any size; synchronous or not.
            total_bytes: size of the image if it is known. Then one that is too
                large is refused at once, and one that was cut short, too.
            model: as in `predict`.
            top_k: as in `predict`.
            priority: as in `predict`.
            include_scores: as in `predict`.
            request_id: as in `predict`.
            timeout_s: longest wait, the upload included.

        Raises:
            DespachoError: one of its subclasses.
        """
        options = wire.upload_options(
            model=model,
            top_k=top_k,
            priority=priority,
            include_scores=include_scores,
            request_id=request_id or wire.new_request_id(),
            total_bytes=total_bytes,
        )
        feed = Feed(options)
        sender = Sender()
        # A method that takes a stream is called like one that takes a request.
        method: Any = self._connection.predictions.PredictUpload
        try:
            response: prediction_pb2.PredictUploadResponse = await self._connection.call(
                method,
                sender.sending(feed.parts_async(chunks)),
                timeout_s=timeout_s,
                request_id=options.request_id,
            )
        except DespachoError:
            feed.check()
            raise
        finally:
            sender.stop()
        feed.check()
        return wire.prediction_result(response.response)

    async def predict_stream(
        self,
        images: AsyncIterable[tuple[KeyT, Image]] | Iterable[tuple[KeyT, Image]],
        *,
        model: str = "",
        top_k: int = DEFAULT_TOP_K,
        priority: Priority = Priority.NORMAL,
        include_scores: bool = False,
        timeout_s: float = DEFAULT_STREAM_TIMEOUT_S,
    ) -> AsyncGenerator[StreamOutcome[KeyT], None]:
        """Label many images; yields outcomes as they come, in any order.

        `images` is read in another task, but for the first one of each call, and
        only as fast as the server takes them. Nothing happens before the first
        `anext`. Leaving the loop cancels what is in progress; with
        `contextlib.aclosing`, before the next line runs. An image that fails yields
        its error, and the stream goes on.

        The stream goes over one call; when `FEEDING_SHARE` of its time is used,
        over the next one. gRPC retries a call only until its first answer: after
        that a lost server raises, and `unanswered` of the error has the keys of
        the images to send again.

        Args:
            images: pairs of a key of any kind and an image, such as
                `enumerate(paths)`; synchronous or not. What it raises is raised here, after the
                answers to the images before.
            model: as in `predict`.
            top_k: as in `predict`.
            priority: as in `predict`.
            include_scores: as in `predict`.
            timeout_s: deadline of each call; a server gives each image 300 s of it at
                most. `images` may pause for somewhat less than 60 % of it.

        Raises:
            DespachoError: the call as a whole failed.
        """
        ledger = StreamLedger[KeyT](
            model=model, top_k=top_k, priority=priority, include_scores=include_scores
        )
        pairs = _asynchronous(images)
        try:
            while not ledger.is_exhausted:
                # A call is for images: those that cannot be read need none.
                first = await self._next_request(pairs, ledger)
                for outcome in ledger.rejected():
                    yield outcome
                if first is None:
                    continue
                async with aclosing(self._answers(first, pairs, ledger, timeout_s)) as answers:
                    async for outcome in answers:
                        yield outcome
        except DespachoError as error:
            rejected, error.unanswered = ledger.left()
            for outcome in rejected:
                yield outcome
            raise
        if ledger.input_error is not None:
            raise ledger.input_error

    async def models(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> tuple[Model, ...]:
        """List the models that are, or once were, served; without their labels."""
        response = await self._connection.call(
            self._connection.predictions.ListModels,
            prediction_pb2.ListModelsRequest(),
            timeout_s=timeout_s,
        )
        return tuple(wire.model(message) for message in response.models)

    async def model(self, name: str = "", *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Model:
        """Describe one model, with its labels; empty: the default one.

        Raises:
            NotFound: no such model was ever served.
        """
        response = await self._connection.call(
            self._connection.predictions.GetModel,
            prediction_pb2.GetModelRequest(name=name),
            timeout_s=timeout_s,
        )
        return wire.model(response.model)

    async def health(self, service: str = "", *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Health:
        """Ask the health service; not retried.

        Args:
            service: empty: the process answers; `readiness`: it can take
                requests; or the name of a model.
            timeout_s: longest wait.

        Raises:
            NotFound: no such service.
        """
        request = health_pb2.HealthCheckRequest(service=service)
        return wire.health(
            await self._connection.call(self._connection.health.Check, request, timeout_s=timeout_s)
        )

    async def _answers(
        self,
        first: prediction_pb2.PredictStreamRequest,
        pairs: AsyncIterator[tuple[KeyT, Image]],
        ledger: StreamLedger[KeyT],
        timeout_s: float,
    ) -> AsyncGenerator[StreamOutcome[KeyT], None]:
        """Send over one call until it is fed, and yield all of its answers."""
        ledger.is_fed = False
        fed_at = time.monotonic() + timeout_s * FEEDING_SHARE
        sender = Sender()
        responses = self._connection.stream(
            self._connection.predictions.PredictStream,
            sender.sending(self._requests(first, pairs, ledger, fed_at)),
            timeout_s=timeout_s,
        )
        try:
            async with aclosing(responses):
                async for response in responses:
                    yield ledger.outcome(response)
                    # After each: while answers are expected, the sender relies on it.
                    for rejected in ledger.rejected():
                        yield rejected
                for rejected in ledger.rejected():
                    yield rejected
                ledger.check_complete()
        finally:
            sender.stop()

    async def _requests(
        self,
        first: prediction_pb2.PredictStreamRequest,
        pairs: AsyncIterator[tuple[KeyT, Image]],
        ledger: StreamLedger[KeyT],
        fed_at: float,
    ) -> AsyncIterator[prediction_pb2.PredictStreamRequest]:
        """Read the caller's images, in the task that sends them."""
        yield first
        while not ledger.is_exhausted and time.monotonic() < fed_at:
            request = await self._next_request(pairs, ledger)
            if request is not None:
                yield request
            elif not ledger.expects_answers:
                # The end of this call shows what was rejected. Else the receiver would wait for
                # an answer, and the caller perhaps for this outcome.
                break
        ledger.is_fed = True

    async def _next_request(
        self, pairs: AsyncIterator[tuple[KeyT, Image]], ledger: StreamLedger[KeyT]
    ) -> prediction_pb2.PredictStreamRequest | None:
        """Take an image; None: it was rejected, or there is none."""
        request_id = ""
        try:
            key, image = await anext(pairs)
            request_id = ledger.take(key)
            encoded = await self._connection.load(image)
        except StopAsyncIteration:
            ledger.finish()
        except BaseException as error:
            if ends_this_task(error):
                raise
            ledger.fail(request_id, error)
        else:
            return ledger.request(request_id, encoded)
        return None


async def _asynchronous(
    pairs: AsyncIterable[tuple[KeyT, Image]] | Iterable[tuple[KeyT, Image]],
) -> AsyncIterator[tuple[KeyT, Image]]:
    if isinstance(pairs, AsyncIterable):
        async for pair in pairs:
            yield pair
    else:
        for pair in pairs:
            yield pair
