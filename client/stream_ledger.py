"""Which images of a stream are on their way; no I/O, shared by both clients."""

import threading
from collections.abc import Iterator
from typing import Final, Generic

import grpc

from prediction.v1 import prediction_pb2

from . import status, wire
from .errors import DespachoError, InternalError
from .results import KeyT, Priority, StreamOutcome

DEFAULT_STREAM_TIMEOUT_S: Final = 300.0
"""Deadline of one call of a stream, seconds; the longest a server grants an image."""

FEEDING_SHARE: Final = 0.4
"""Part of a call's time in which it takes new images. The rest is for answers:
then the stream goes on over a fresh call, so it may last longer than any
deadline, and moves on from a server that is being replaced."""


class StreamLedger(Generic[KeyT]):
    """Matches the answers of one stream to the keys of its images.

    The synchronous client sends from a thread of gRPC's and receives in the
    caller's: the sender adds an image when it is taken from the input, and what
    is done with it is one step, so that each image is in one place at any time.
    """

    def __init__(self, *, model: str, top_k: int, priority: Priority, include_scores: bool) -> None:
        self._model = model
        self._top_k = top_k
        self._priority = priority
        self._include_scores = include_scores
        self._prefix = wire.new_request_id()
        self._taken_count = 0
        self._waiting: dict[str, KeyT] = {}
        self._rejected: list[StreamOutcome[KeyT]] = []
        self._moving = threading.Lock()
        """Held while an image goes from one to the other, or both are looked at."""

        self.is_fed = False
        """Whether the current call got all the images it will get."""
        self.is_exhausted = False
        """Whether the caller's images have come to an end."""
        self.input_error: BaseException | None = None
        """What the caller's iterator raised instead of an image."""

    def take(self, key: KeyT) -> str:
        """Expect the answer to an image that was taken from the input; return its request id."""
        self._taken_count += 1
        request_id = f"{self._prefix}-{self._taken_count}"
        self._waiting[request_id] = key
        return request_id

    def request(self, request_id: str, image: bytes) -> prediction_pb2.PredictStreamRequest:
        """Build the request for an image that was taken."""
        return prediction_pb2.PredictStreamRequest(
            request=wire.predict_request(
                image,
                model=self._model,
                top_k=self._top_k,
                priority=self._priority,
                include_scores=self._include_scores,
                request_id=request_id,
            )
        )

    @property
    def expects_answers(self) -> bool:
        """Whether an answer will come, with which the receiver looks at what was rejected."""
        return bool(self._waiting)

    def finish(self) -> None:
        """Note that there are no more images."""
        self.is_exhausted = True

    def fail(self, request_id: str, error: BaseException) -> None:
        """Note what was raised in the place of an image.

        Args:
            request_id: of what was taken; empty: nothing was.
            error: one of the client's own is the outcome of that image; any other ends the input.
        """
        if request_id and isinstance(error, DespachoError):
            with self._moving:
                key = self._waiting.pop(request_id)
                self._rejected.append(StreamOutcome(key, error=error))
            return
        # Raised later, after the answers; where gRPC takes the images it would only be logged.
        self._waiting.pop(request_id, None)
        self.input_error = error
        self.is_exhausted = True

    def outcome(self, response: prediction_pb2.PredictStreamResponse) -> StreamOutcome[KeyT]:
        """Match an answer to its image.

        Raises:
            InternalError: nobody asked for this answer.
        """
        request_id = response.request_id
        if request_id not in self._waiting:
            raise _broken(f"the server answered an unknown request, {request_id!r}")
        key = self._waiting.pop(request_id)
        if response.HasField("failure"):
            error = status.from_status(response.failure, request_id=request_id)
            return StreamOutcome(key, error=error)
        return StreamOutcome(key, result=wire.prediction_result(response.response))

    def rejected(self) -> Iterator[StreamOutcome[KeyT]]:
        """Take out the outcomes of the images that are not sent."""
        while self._rejected:
            yield self._rejected.pop(0)

    def left(self) -> tuple[list[StreamOutcome[KeyT]], tuple[KeyT, ...]]:
        """Return the outcomes that nobody has seen, and the keys of images without any."""
        with self._moving:
            return list(self.rejected()), tuple(self._waiting.values())

    def check_complete(self) -> None:
        """Check a call that the server ended without an error.

        Raises:
            InternalError: it did so before it had read or answered everything.
        """
        if self._waiting or not self.is_fed:
            raise _broken("the server ended the stream before it had answered every image")


def _broken(message: str) -> InternalError:
    return InternalError(message, code=grpc.StatusCode.INTERNAL, reason="STREAM_BROKEN")
