"""Between operations, dead letters and protobuf messages; no I/O."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final

import grpc
from google.longrunning import operations_pb2  # type: ignore[import-untyped, unused-ignore]
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from prediction.v1 import admin_pb2, prediction_pb2

from . import status, wire
from .errors import DespachoError, InternalError
from .results import DeadLetter, Operation, OperationState, PredictionResult

DEFAULT_WAIT_TIMEOUT_S: Final = 300.0
"""Longest wait for the end of an operation, seconds."""

MAX_PURGED: Final = 1000
"""Most dead letters that one request may name."""

_STATE: Final = {
    prediction_pb2.PREDICTION_STATE_QUEUED: OperationState.QUEUED,
    prediction_pb2.PREDICTION_STATE_RUNNING: OperationState.RUNNING,
}


def submit_request(
    image: bytes,
    *,
    model: str,
    top_k: int,
    include_scores: bool,
    request_id: str,
    synced: bool,
) -> prediction_pb2.SubmitPredictionRequest:
    """Build the request to accept one image; without a `request_id` it gets one."""
    return prediction_pb2.SubmitPredictionRequest(
        model=model,
        image=image,
        top_k=top_k,
        include_scores=include_scores,
        request_id=request_id or wire.new_uuid(),
        durability=prediction_pb2.DURABILITY_SYNCED
        if synced
        else prediction_pb2.DURABILITY_WRITTEN,
    )


def wait_request(name: str, wait_s: float) -> Any:
    """Build the request to wait for the end of an operation."""
    timeout = Duration()
    timeout.FromMilliseconds(max(1, int(wait_s * 1000)))
    return operations_pb2.WaitOperationRequest(name=name, timeout=timeout)


def list_request(model: str, *, page_size: int, page_token: str) -> Any:
    """Build the request for a page of operations, of all models if none is named."""
    return operations_pb2.ListOperationsRequest(
        name=f"models/{model or '-'}", page_size=page_size, page_token=page_token
    )


def operation(message: Any) -> Operation:
    """Read an operation."""
    metadata = prediction_pb2.PredictionMetadata()
    # Of another type it stays empty: then the name is all there is to know.
    message.metadata.Unpack(metadata)
    result, error = _outcome(message, metadata.request_id)
    return Operation(
        name=message.name,
        model=metadata.model or model_of(message.name),
        state=OperationState.DONE
        if message.done
        else _STATE.get(metadata.state, OperationState.UNKNOWN),
        attempt=metadata.attempt,
        created_at=_time(metadata, "create_time"),
        ended_at=_time(metadata, "end_time"),
        expires_at=_time(metadata, "expire_time"),
        estimated_position=metadata.estimated_position,
        request_id=metadata.request_id,
        result=result,
        error=error,
    )


def dead_letter(message: admin_pb2.DeadLetter) -> DeadLetter:
    """Read a dead letter."""
    return DeadLetter(
        name=message.name,
        request_id=message.request_id,
        deliveries=message.deliveries,
        reason=message.reason,
        created_at=_time(message, "create_time"),
        size_bytes=message.size_bytes,
        top_k=message.top_k,
        image=message.image,
    )


def purge_requests(
    model: str, names: Iterable[str], *, is_all: bool
) -> Iterator[admin_pb2.PurgeDeadLettersRequest]:
    """Build the requests that delete these letters, or all; none for no letters.

    Letters of several models may be named if `model` is empty.
    """
    if is_all:
        yield admin_pb2.PurgeDeadLettersRequest(model=model, names=names, all=True)
        return
    named = sorted(set(names), key=model_of)
    for own_model, group in groupby(named, key=model_of):
        letters = list(group)
        for start in range(0, len(letters), MAX_PURGED):
            yield admin_pb2.PurgeDeadLettersRequest(
                model=model or own_model, names=letters[start : start + MAX_PURGED]
            )


def model_of(name: str) -> str:
    """Return the model in `models/{model}/...`; empty if there is none."""
    collection, _, rest = name.partition("/")
    return rest.partition("/")[0] if collection == "models" else ""


def _outcome(
    message: Any, request_id: str
) -> tuple[PredictionResult, None] | tuple[None, DespachoError | None]:
    if not message.done:
        return None, None
    if message.HasField("error"):
        return None, status.from_status(message.error, request_id=request_id)
    response = prediction_pb2.PredictResponse()
    if not message.response.Unpack(response):
        return None, InternalError(
            f"the operation ended without labels and without an error: {message.name}",
            code=grpc.StatusCode.INTERNAL,
            reason="OPERATION_BROKEN",
            request_id=request_id,
        )
    return wire.prediction_result(response), None


def _time(message: Any, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    return timestamp.ToDatetime(tzinfo=UTC)
