"""A front-end that also accepts images and keeps dead letters, in memory.

What becomes of an operation depends on its image, as in `fake_front_end.py`; one
that begins with `slow` stays queued until `finish` is called.
"""

# The proto gives the methods their names and arguments.
# ruff: noqa: N802

import itertools
import random
import threading
from typing import Any

import grpc
from google.longrunning import (  # type: ignore[import-untyped, unused-ignore]
    operations_pb2,
    operations_pb2_grpc,
)
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp

from client.patience import Patience
from prediction.v1 import admin_pb2, admin_pb2_grpc, prediction_pb2
from tests.fake_front_end import LIMIT_S, NO_MODEL, FakeFrontEnd, Refusal, answer

CREATED = Timestamp(seconds=1_767_323_045)  # 2026-01-02 03:04:05 UTC
ENDED = Timestamp(seconds=CREATED.seconds + 2)
EXPIRES = Timestamp(seconds=CREATED.seconds + 3600)

PAGE_SIZE = 2
"""Things on a page unless the caller wants another number."""

NO_OPERATION = Refusal(grpc.StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND", "no such operation")
NO_LETTER = Refusal(grpc.StatusCode.NOT_FOUND, "DEAD_LETTER_NOT_FOUND", "no such dead letter")
REUSED = Refusal(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED", "used for something else")
CANCELLED = Refusal(grpc.StatusCode.CANCELLED, "OPERATION_CANCELLED", "cancelled by its caller")
IN_USE = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "MODEL_IN_USE", "a worker of it lives")


class RestingClock:
    """Stands still unless somebody rests; the rests are written down."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.pauses_s: list[float] = []
        self._random = random.Random(7)

    def rest(self, pause_s: float) -> None:
        self.pauses_s.append(pause_s)
        self.now_s += pause_s

    async def rest_async(self, pause_s: float) -> None:
        self.rest(pause_s)

    def patience(self, timeout_s: float) -> Patience:
        return Patience(timeout_s, now=lambda: self.now_s, uniform=self._random.uniform)


class FakeOperations(
    FakeFrontEnd,
    operations_pb2_grpc.OperationsServicer,  # type: ignore[misc, unused-ignore] # untyped
    admin_pb2_grpc.AdminServiceServicer,
):
    """`FakeFrontEnd` with operations and dead letters."""

    def __init__(self) -> None:
        super().__init__()
        self.submitted: list[prediction_pb2.SubmitPredictionRequest] = []
        """Each attempt, refused or not."""
        self.waits_s: list[tuple[float, float]] = []
        """Of each WaitOperation: how long it was asked to wait, and its deadline."""
        self.waits_at_all = True
        """Clear: WaitOperation answers at once, which the contract allows."""
        self.purges: list[admin_pb2.PurgeDeadLettersRequest] = []
        self.letters: dict[str, admin_pb2.DeadLetter] = {}
        self.models = {"default", "busy", "old"}
        self._operations: dict[str, Any] = {}
        self._requests: dict[str, prediction_pb2.SubmitPredictionRequest] = {}
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        operations_pb2_grpc.add_OperationsServicer_to_server(self, self._server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self, self._server)

    def set_aside(self, image: bytes, model: str = "default") -> str:
        """Keep a dead letter; returns its name."""
        name = f"models/{model}/deadLetters/{next(self._numbers)}-0"
        self.letters[name] = admin_pb2.DeadLetter(
            name=name,
            request_id="r-1",
            deliveries=2,
            reason="JOB_POISONED",
            create_time=CREATED,
            size_bytes=len(image),
            top_k=5,
            image=image,
        )
        return name

    def finish(self, name: str) -> None:
        """End an operation as its image demands."""
        request = self._requests[name]
        operation = self._operations[name]
        try:
            response = answer(
                prediction_pb2.PredictRequest(
                    model=request.model,
                    image=request.image,
                    top_k=request.top_k,
                    include_scores=request.include_scores,
                    request_id=request.request_id,
                )
            )
        except Refusal as refusal:
            self._end(operation, refusal)
        else:
            operation.response.Pack(response)
            self._end(operation)

    def SubmitPrediction(
        self, request: prediction_pb2.SubmitPredictionRequest, context: Any
    ) -> Any:
        self.submitted.append(request)
        self._begin(context)
        if request.model == "nope":
            NO_MODEL.abort(context)
        for name, known in self._requests.items():
            if known.request_id == request.request_id:
                if known != request:
                    REUSED.abort(context)
                return self._operations[name]
        return self._accept(request)

    def GetOperation(self, request: Any, context: Any) -> Any:
        self._begin(context)
        return self._find(request.name, context)

    def WaitOperation(self, request: Any, context: Any) -> Any:
        wait_s = request.timeout.ToTimedelta().total_seconds()
        self.waits_s.append((wait_s, context.time_remaining()))
        self._begin(context)
        operation = self._find(request.name, context)
        if self.waits_at_all:
            context.add_callback(self._wake)
            self.slow_arrived.set()
            with self._changed:
                self._changed.wait_for(
                    lambda: operation.done or not context.is_active(), min(wait_s, LIMIT_S)
                )
        return operation

    def ListOperations(self, request: Any, context: Any) -> Any:
        self._begin(context)
        model = request.name.removeprefix("models/")
        found = [
            operation
            for name, operation in self._operations.items()
            if model in {"-", name.split("/")[1]}
        ]
        page, token = _page(found, request)
        return operations_pb2.ListOperationsResponse(operations=page, next_page_token=token)

    def CancelOperation(self, request: Any, context: Any) -> Empty:
        self._begin(context)
        operation = self._find(request.name, context)
        if not operation.done:
            self._end(operation, CANCELLED)
        return Empty()

    def DeleteOperation(self, request: Any, context: Any) -> Empty:
        self._begin(context)
        self._find(request.name, context)
        del self._operations[request.name], self._requests[request.name]
        return Empty()

    def ListDeadLetters(
        self, request: admin_pb2.ListDeadLettersRequest, context: Any
    ) -> admin_pb2.ListDeadLettersResponse:
        self._begin(context)
        if request.model == "nope":
            NO_MODEL.abort(context)
        page, token = _page(self._letters_of(request.model), request)
        response = admin_pb2.ListDeadLettersResponse(dead_letters=page, next_page_token=token)
        for letter in response.dead_letters:
            letter.ClearField("image")
        return response

    def GetDeadLetter(
        self, request: admin_pb2.GetDeadLetterRequest, context: Any
    ) -> admin_pb2.GetDeadLetterResponse:
        self._begin(context)
        if request.name not in self.letters:
            NO_LETTER.abort(context)
        return admin_pb2.GetDeadLetterResponse(dead_letter=self.letters[request.name])

    def ReplayDeadLetter(self, request: admin_pb2.ReplayDeadLetterRequest, context: Any) -> Any:
        self._begin(context)
        if request.name not in self.letters:
            NO_LETTER.abort(context)
        letter = self.letters.pop(request.name)
        return self._accept(
            prediction_pb2.SubmitPredictionRequest(
                image=letter.image, top_k=letter.top_k, request_id=letter.request_id
            )
        )

    def PurgeDeadLetters(
        self, request: admin_pb2.PurgeDeadLettersRequest, context: Any
    ) -> admin_pb2.PurgeDeadLettersResponse:
        self._begin(context)
        self.purges.append(request)
        names = (
            [letter.name for letter in self._letters_of(request.model)]
            if request.all
            else [name for name in request.names if name in self.letters]
        )
        for name in names:
            del self.letters[name]
        return admin_pb2.PurgeDeadLettersResponse(purged_count=len(names))

    def ForgetModel(
        self, request: admin_pb2.ForgetModelRequest, context: Any
    ) -> admin_pb2.ForgetModelResponse:
        self._begin(context)
        if request.name not in self.models:
            NO_MODEL.abort(context)
        if request.name == "busy":
            IN_USE.abort(context)
        self.models.remove(request.name)
        return admin_pb2.ForgetModelResponse()

    def _accept(self, request: prediction_pb2.SubmitPredictionRequest) -> Any:
        model = request.model or "default"
        operation = operations_pb2.Operation(
            name=f"models/{model}/operations/{next(self._numbers)}"
        )
        operation.metadata.Pack(
            prediction_pb2.PredictionMetadata(
                model=model,
                state=prediction_pb2.PREDICTION_STATE_QUEUED,
                create_time=CREATED,
                expire_time=EXPIRES,
                estimated_position=4,
                request_id=request.request_id,
            )
        )
        accepted = operations_pb2.Operation()
        accepted.CopyFrom(operation)
        self._operations[operation.name] = operation
        self._requests[operation.name] = request
        if not request.image.startswith(b"slow"):
            self.finish(operation.name)
        return accepted

    def _end(self, operation: Any, refusal: Refusal | None = None) -> None:
        metadata = prediction_pb2.PredictionMetadata()
        operation.metadata.Unpack(metadata)
        metadata.state = prediction_pb2.PREDICTION_STATE_DONE
        metadata.attempt = 1
        metadata.estimated_position = 0
        metadata.end_time.CopyFrom(ENDED)
        operation.metadata.Pack(metadata)
        if refusal is not None:
            operation.error.CopyFrom(refusal.status)
        operation.done = True
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _find(self, name: str, context: Any) -> Any:
        if name not in self._operations:
            NO_OPERATION.abort(context)
        return self._operations[name]

    def _letters_of(self, model: str) -> list[admin_pb2.DeadLetter]:
        prefix = f"models/{model or 'default'}/"
        return [letter for name, letter in self.letters.items() if name.startswith(prefix)]


def _page(found: list[Any], request: Any) -> tuple[list[Any], str]:
    start = int(request.page_token or 0)
    end = start + (request.page_size or PAGE_SIZE)
    return found[start:end], str(end) if end < len(found) else ""
