"""Between the client's values and protobuf messages; no I/O."""

import uuid
from typing import Final

from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2

from prediction.v1 import prediction_pb2

from .results import Health, Label, Model, ModelState, PredictionResult, Priority, Timing

DEFAULT_TOP_K: Final = 5
"""Labels per image."""

DEFAULT_TIMEOUT_S: Final = 30.0
"""Longest wait for one answer, seconds; what the server assumes, too."""

_PRIORITY: Final = {
    Priority.HIGH: prediction_pb2.PRIORITY_HIGH,
    Priority.NORMAL: prediction_pb2.PRIORITY_NORMAL,
    Priority.LOW: prediction_pb2.PRIORITY_LOW,
}

_STATE: Final = {
    prediction_pb2.MODEL_STATE_READY: ModelState.READY,
    prediction_pb2.MODEL_STATE_LOADING: ModelState.LOADING,
    prediction_pb2.MODEL_STATE_NO_WORKER: ModelState.NO_WORKER,
}

_HEALTH: Final[dict[int, Health]] = {
    health_pb2.HealthCheckResponse.SERVING: Health.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING: Health.NOT_SERVING,
}


def new_request_id() -> str:
    """Make an id, so that even an error that never met the server has one."""
    return uuid.uuid4().hex


def new_uuid() -> str:
    """Make an id that makes it safe to submit twice; the server wants a UUID."""
    return str(uuid.uuid4())


def predict_request(
    image: bytes,
    *,
    model: str,
    top_k: int,
    priority: Priority,
    include_scores: bool,
    request_id: str,
) -> prediction_pb2.PredictRequest:
    """Build the request for one image."""
    return prediction_pb2.PredictRequest(
        model=model,
        image=image,
        top_k=top_k,
        priority=_PRIORITY[priority],
        include_scores=include_scores,
        request_id=request_id,
    )


def upload_options(
    *,
    model: str,
    top_k: int,
    priority: Priority,
    include_scores: bool,
    request_id: str,
    total_bytes: int,
) -> prediction_pb2.UploadOptions:
    """Build the first part of an upload."""
    return prediction_pb2.UploadOptions(
        model=model,
        top_k=top_k,
        priority=_PRIORITY[priority],
        include_scores=include_scores,
        request_id=request_id,
        total_bytes=total_bytes,
    )


def prediction_result(response: prediction_pb2.PredictResponse) -> PredictionResult:
    """Read the answer for one image."""
    timing = response.timing
    return PredictionResult(
        labels=tuple(Label(p.label, p.class_id, p.score) for p in response.predictions),
        model=response.model,
        model_version=response.model_version,
        timing=Timing(
            queue_s=seconds_of(timing.queue),
            decode_s=seconds_of(timing.decode),
            inference_s=seconds_of(timing.inference),
            total_s=seconds_of(timing.total),
            batch_size=timing.batch_size,
            attempt=timing.attempt,
        ),
        worker=response.worker,
        request_id=response.request_id,
        scores=tuple(response.scores),
    )


def model(message: prediction_pb2.Model) -> Model:
    """Read the description of a model."""
    return Model(
        name=message.name,
        version=message.version,
        engine=message.engine,
        labels=tuple(message.labels),
        class_count=message.class_count,
        input_width=message.input_width,
        input_height=message.input_height,
        state=_STATE.get(message.state, ModelState.UNKNOWN),
        live_workers=message.live_workers,
        queue_depth=message.queue_depth,
        estimated_wait_s=seconds_of(message.estimated_wait)
        if message.HasField("estimated_wait")
        else None,
        live_versions=tuple(message.live_versions),
        max_batch_size=message.max_batch_size,
        queued_operations=message.queued_operations,
    )


def health(response: health_pb2.HealthCheckResponse) -> Health:
    """Read the answer of the health service."""
    return _HEALTH.get(response.status, Health.UNKNOWN)


def seconds_of(duration: Duration) -> float:
    """Read a duration, seconds."""
    return duration.seconds + duration.nanos / 1e9
