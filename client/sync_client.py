"""The synchronous client."""

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2

from prediction.v1 import prediction_pb2

from . import wire
from .channel import Access
from .chunks import Chunks, Feed
from .errors import DespachoError
from .images import Image, load
from .limits import MAX_IMAGE_BYTES
from .results import Health, KeyT, Model, PredictionResult, Priority, StreamOutcome
from .stream_ledger import DEFAULT_STREAM_TIMEOUT_S, FEEDING_SHARE, StreamLedger
from .sync_admin import Admin
from .sync_connection import Connection
from .sync_operations import OperationMethods
from .wire import DEFAULT_TIMEOUT_S, DEFAULT_TOP_K


class Client(OperationMethods):
    """A connection to a Despacho server. May be used from several threads.

    Connects at the first call, and again by itself whenever the connection is
    lost. Each method raises what `errors.py` lists.

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
        over: grpc.Channel | None = None,
    ) -> None:
        access = Access(
            credentials=credentials, api_key=api_key, allow_insecure_key=allow_insecure_key
        )
        self._connection = Connection(target, access, max_image_bytes, over)
        self.admin = Admin(self._connection)
        """What an operator may see and do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel calls in progress and disconnect. Harmless when repeated."""
        self._connection.close()

    def predict(
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
            load(image, max_bytes=self._connection.max_image_bytes),
            model=model,
            top_k=top_k,
            priority=priority,
            include_scores=include_scores,
            request_id=request_id or wire.new_request_id(),
        )
        return wire.prediction_result(
            self._connection.call_patiently(
                self._connection.predictions.Predict,
                request,
                timeout_s=timeout_s,
                request_id=request.request_id,
            )
        )

    def predict_upload(
        self,
        chunks: Chunks,
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
            chunks: a binary file, or bytes in parts of any size; read in another thread,
                which they may keep until they end, however the call does.
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
        # A method that takes a stream is called like one that takes a request.
        method: Any = self._connection.predictions.PredictUpload
        try:
            response: prediction_pb2.PredictUploadResponse = self._connection.call(
                method,
                feed.parts(chunks),
                timeout_s=timeout_s,
                request_id=options.request_id,
            )
        except DespachoError:
            feed.check()
            raise
        feed.check()
        return wire.prediction_result(response.response)

    def predict_stream(
        self,
        images: Iterable[tuple[KeyT, Image]],
        *,
        model: str = "",
        top_k: int = DEFAULT_TOP_K,
        priority: Priority = Priority.NORMAL,
        include_scores: bool = False,
        timeout_s: float = DEFAULT_STREAM_TIMEOUT_S,
    ) -> Generator[StreamOutcome[KeyT], None, None]:
        """Label many images; yields outcomes as they come, in any order.

        `images` is read in another thread, but for the first one of each call, and
        only as fast as the server takes them. Nothing happens before the first
        `next`. Leaving the loop cancels what is in progress. An image that fails
        yields its error, and the stream goes on. Where `images` waits when the
        stream ends early, that thread waits with it, takes one image more and drops it.

        The stream goes over one call; when `FEEDING_SHARE` of its time is used,
        over the next one. gRPC retries a call only until its first answer: after
        that a lost server raises, and `unanswered` of the error has the keys of
        the images to send again.

        Args:
            images: pairs of a key of any kind and an image, such as
                `enumerate(paths)`. What it raises is raised here, after the
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
        pairs = iter(images)
        try:
            while not ledger.is_exhausted:
                # A call is for images: those that cannot be read need none.
                first = self._next_request(pairs, ledger)
                yield from ledger.rejected()
                if first is not None:
                    yield from self._answers(first, pairs, ledger, timeout_s)
        except DespachoError as error:
            rejected, error.unanswered = ledger.left()
            yield from rejected
            raise
        if ledger.input_error is not None:
            raise ledger.input_error

    def models(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> tuple[Model, ...]:
        """List the models that are, or once were, served; without their labels."""
        response = self._connection.call(
            self._connection.predictions.ListModels,
            prediction_pb2.ListModelsRequest(),
            timeout_s=timeout_s,
        )
        return tuple(wire.model(message) for message in response.models)

    def model(self, name: str = "", *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Model:
        """Describe one model, with its labels; empty: the default one.

        Raises:
            NotFound: no such model was ever served.
        """
        response = self._connection.call(
            self._connection.predictions.GetModel,
            prediction_pb2.GetModelRequest(name=name),
            timeout_s=timeout_s,
        )
        return wire.model(response.model)

    def health(self, service: str = "", *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Health:
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
            self._connection.call(self._connection.health.Check, request, timeout_s=timeout_s)
        )

    def _answers(
        self,
        first: prediction_pb2.PredictStreamRequest,
        pairs: Iterator[tuple[KeyT, Image]],
        ledger: StreamLedger[KeyT],
        timeout_s: float,
    ) -> Generator[StreamOutcome[KeyT], None, None]:
        """Send over one call until it is fed, and yield all of its answers."""
        ledger.is_fed = False
        fed_at = time.monotonic() + timeout_s * FEEDING_SHARE
        responses = self._connection.stream(
            self._connection.predictions.PredictStream,
            self._requests(first, pairs, ledger, fed_at),
            timeout_s=timeout_s,
        )
        with closing(responses):
            for response in responses:
                yield ledger.outcome(response)
                # After each: while answers are expected, the sender relies on it.
                yield from ledger.rejected()
            yield from ledger.rejected()
            ledger.check_complete()

    def _requests(
        self,
        first: prediction_pb2.PredictStreamRequest,
        pairs: Iterator[tuple[KeyT, Image]],
        ledger: StreamLedger[KeyT],
        fed_at: float,
    ) -> Iterator[prediction_pb2.PredictStreamRequest]:
        """Read the caller's images, in the thread that sends them."""
        yield first
        while not ledger.is_exhausted and time.monotonic() < fed_at:
            request = self._next_request(pairs, ledger)
            if request is not None:
                yield request
            elif not ledger.expects_answers:
                # The end of this call shows what was rejected. Else the receiver would wait for
                # an answer, and the caller perhaps for this outcome.
                break
        ledger.is_fed = True

    def _next_request(
        self, pairs: Iterator[tuple[KeyT, Image]], ledger: StreamLedger[KeyT]
    ) -> prediction_pb2.PredictStreamRequest | None:
        """Take an image; None: it was rejected, or there is none."""
        request_id = ""
        try:
            key, image = next(pairs)
            request_id = ledger.take(key)
            encoded = load(image, max_bytes=self._connection.max_image_bytes)
        except StopIteration:
            ledger.finish()
        except BaseException as error:  # noqa: BLE001 - the caller's iterator may raise anything
            ledger.fail(request_id, error)
        else:
            return ledger.request(request_id, encoded)
        return None
