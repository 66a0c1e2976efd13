"""A front-end without a queue or a model: what it answers depends on the image.

bad...       INVALID_ARGUMENT IMAGE_UNDECODABLE
full...      RESOURCE_EXHAUSTED QUEUE_FULL, retry after 2.5 s
crash...     INTERNAL INFERENCE_FAILED
slow...      no answer before the call has ended
break...     a stream ends with UNAVAILABLE DRAINING
anything     labelled with its first word, score 0.75; then `other`
"""

# The proto gives the methods their names and arguments.
# ruff: noqa: N802, ARG002

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from prediction.v1 import prediction_pb2, prediction_pb2_grpc

LIMIT_S = 10
"""Longest wait for something that should happen at once."""


class Refusal(Exception):
    """An error with everything a real server sends."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        *,
        field: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status_pb2.Status(code=code.value[0], message=message)
        self.status.details.add().Pack(
            error_details_pb2.ErrorInfo(reason=reason, domain="despacho")
        )
        self.trailers: list[tuple[str, str | bytes]] = []
        if field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=field)
            self.status.details.add().Pack(
                error_details_pb2.BadRequest(field_violations=[violation])
            )
        if retry_after_s is not None:
            delay = Duration(nanos=int(retry_after_s * 1e9) % 10**9, seconds=int(retry_after_s))
            self.status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
            self.trailers.append(("grpc-retry-pushback-ms", str(int(retry_after_s * 1000))))
        self.trailers.append(("grpc-status-details-bin", self.status.SerializeToString()))

    def abort(self, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata(tuple(self.trailers))
        context.abort(self.code, self.status.message)


BAD = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", "not an image", field="image")
FULL = Refusal(
    grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "the queue is full", retry_after_s=2.5
)
NO_CHUNK = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "no chunk", field="chunk")
CUT_SHORT = Refusal(
    grpc.StatusCode.INVALID_ARGUMENT,
    "INVALID_ARGUMENT",
    "other than announced",
    field="total_bytes",
)
CRASH = Refusal(grpc.StatusCode.INTERNAL, "INFERENCE_FAILED", "the model raised")
NO_MODEL = Refusal(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "no model named 'nope'")
NO_WORKER = Refusal(
    grpc.StatusCode.UNAVAILABLE, "NO_WORKER", "no worker is alive", retry_after_s=0.01
)
LOADING = Refusal(
    grpc.StatusCode.UNAVAILABLE, "MODEL_LOADING", "the model is being loaded", retry_after_s=60
)
DRAINING = Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING", "shutting down", retry_after_s=0.01)


def answer(request: prediction_pb2.PredictRequest) -> prediction_pb2.PredictResponse:
    """Label with the image's first word, or raise `Refusal`."""
    word = (request.image[:64].split() or [b""])[0].decode(errors="replace")
    for prefix, refusal in {"bad": BAD, "full": FULL, "crash": CRASH}.items():
        if word.startswith(prefix):
            raise refusal
    if request.model == "nope":
        raise NO_MODEL
    labels = [
        prediction_pb2.Prediction(label=word, class_id=3, score=0.75),
        prediction_pb2.Prediction(label="other", class_id=1, score=0.25),
    ]
    return prediction_pb2.PredictResponse(
        request_id=request.request_id,
        model=request.model or "default",
        model_version="7",
        predictions=labels[: request.top_k],
        scores=[0, 0.25, 0, 0.75] if request.include_scores else [],
        timing=prediction_pb2.Timing(
            queue=Duration(nanos=2_000_000),
            decode=Duration(nanos=3_000_000),
            inference=Duration(nanos=4_000_000),
            total=Duration(seconds=1, nanos=500_000_000),
            batch_size=2,
            attempt=1,
        ),
        worker="worker-1",
    )


MODEL = prediction_pb2.Model(
    name="default",
    version="7",
    engine="fake",
    labels=["a", "other", "b", "c"],
    class_count=4,
    input_width=224,
    input_height=200,
    state=prediction_pb2.MODEL_STATE_READY,
    live_workers=2,
    queue_depth=5,
    estimated_wait=Duration(nanos=500_000_000),
    live_versions=["7"],
    max_batch_size=16,
    queued_operations=3,
)


class FakeFrontEnd(prediction_pb2_grpc.PredictionServiceServicer):
    """Serves on a free port of the loopback while it is entered.

    Args:
        credentials: of the port; None: it is not encrypted.
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self._credentials = credentials
        self.refusals_left = 0
        """How many calls are refused with NO_WORKER before one is answered."""
        self.refusals: list[Refusal] = []
        """How the next calls are refused, first to last."""
        self.attempt_count = 0
        self.stream_count = 0
        self.requests: list[prediction_pb2.PredictRequest] = []
        self.chunk_sizes: list[int] = []
        self.announced_bytes = 0
        self.slow_arrived = threading.Event()
        self.call_ended = threading.Event()
        self.may_read = threading.Event()
        """Streams read nothing while it is clear."""
        self.may_read.set()
        self.health = health.HealthServicer()
        self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        self.health.set("readiness", health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server = grpc.server(
            ThreadPoolExecutor(16),
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", 32 * 1024 * 1024),
            ],
        )
        prediction_pb2_grpc.add_PredictionServiceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.target = ""

    def __enter__(self) -> Self:
        free = "127.0.0.1:0"
        port = (
            self._server.add_insecure_port(free)
            if self._credentials is None
            else self._server.add_secure_port(free, self._credentials)
        )
        self.target = f"127.0.0.1:{port}"
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.may_read.set()
        self._server.stop(grace=0).wait(LIMIT_S)

    def Predict(
        self, request: prediction_pb2.PredictRequest, context: Any
    ) -> prediction_pb2.PredictResponse:
        self._begin(context)
        self.requests.append(request)
        try:
            self._wait_if_slow(request)
            return answer(request)
        except Refusal as refusal:
            refusal.abort(context)
            raise

    def PredictStream(
        self, request_iterator: Iterator[prediction_pb2.PredictStreamRequest], context: Any
    ) -> Iterator[prediction_pb2.PredictStreamResponse]:
        self._begin(context)
        self.stream_count += 1
        assert self.may_read.wait(LIMIT_S)
        for item in request_iterator:
            request = item.request
            self.requests.append(request)
            if request.image.startswith(b"break"):
                DRAINING.abort(context)
            self._wait_if_slow(request)
            response = prediction_pb2.PredictStreamResponse(request_id=request.request_id)
            try:
                response.response.CopyFrom(answer(request))
            except Refusal as refusal:
                response.failure.CopyFrom(refusal.status)
            yield response

    def PredictBatch(self, request: prediction_pb2.PredictBatchRequest, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "the client has no use for it")

    def PredictUpload(
        self, request_iterator: Iterator[prediction_pb2.PredictUploadRequest], context: Any
    ) -> prediction_pb2.PredictUploadResponse:
        self._begin(context)
        options = next(request_iterator).options
        self.announced_bytes = options.total_bytes
        request = prediction_pb2.PredictRequest(
            model=options.model,
            top_k=options.top_k,
            request_id=options.request_id,
            priority=options.priority,
            include_scores=options.include_scores,
        )
        try:
            for part in request_iterator:
                if part.WhichOneof("part") != "chunk":
                    raise NO_CHUNK
                request.image += part.chunk
                self.chunk_sizes.append(len(part.chunk))
                if request.image.startswith(b"bad"):
                    raise BAD
            # A call that was given up may look like one that ended, for a moment.
            if options.total_bytes and len(request.image) != options.total_bytes:
                raise CUT_SHORT
            self.requests.append(request)
            self._wait_if_slow(request)
            return prediction_pb2.PredictUploadResponse(response=answer(request))
        except Refusal as refusal:
            refusal.abort(context)
            raise

    def SubmitPrediction(
        self, request: prediction_pb2.SubmitPredictionRequest, context: Any
    ) -> Any:
        # `fake_operations.py` does.
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "keeps no operations")

    def ListModels(
        self, request: prediction_pb2.ListModelsRequest, context: Any
    ) -> prediction_pb2.ListModelsResponse:
        listed = prediction_pb2.Model()
        listed.CopyFrom(MODEL)
        listed.ClearField("labels")
        return prediction_pb2.ListModelsResponse(models=[listed])

    def GetModel(
        self, request: prediction_pb2.GetModelRequest, context: Any
    ) -> prediction_pb2.GetModelResponse:
        if request.name == "nope":
            NO_MODEL.abort(context)
        return prediction_pb2.GetModelResponse(model=MODEL)

    def _begin(self, context: Any) -> None:
        context.add_callback(self.call_ended.set)
        self.attempt_count += 1
        if self.refusals:
            self.refusals.pop(0).abort(context)
        if self.refusals_left:
            self.refusals_left -= 1
            NO_WORKER.abort(context)

    def _wait_if_slow(self, request: prediction_pb2.PredictRequest) -> None:
        if request.image.startswith(b"slow"):
            self.slow_arrived.set()
            self.call_ended.wait(LIMIT_S)
