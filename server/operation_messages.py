"""From an operation to the messages of the standard; no rules, no I/O."""

from google.longrunning import operations_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from dispatch.operations import Operation, Progress
from prediction.v1 import prediction_pb2 as pb
from server.failures import error_of
from server.names import operation_name
from server.status import to_status
from server.translate import to_response

_STATES = {
    Progress.QUEUED: pb.PREDICTION_STATE_QUEUED,
    Progress.RUNNING: pb.PREDICTION_STATE_RUNNING,
    Progress.DONE: pb.PREDICTION_STATE_DONE,
}


def to_operation(operation: Operation) -> operations_pb2.Operation:
    """Return the caller's view of an operation."""
    job, reply = operation.job, operation.reply
    message = operations_pb2.Operation(name=operation_name(job.model, job.id))
    message.metadata.Pack(to_metadata(operation))
    if reply is None:
        return message
    message.done = True
    if reply.HasField("answer"):
        ended_ms = operation.ended_ms or operation.now_ms
        total_s = max(0, ended_ms - operation.created_ms) / 1000
        message.response.Pack(to_response(reply, job, total_s=total_s))
    else:
        message.error.CopyFrom(to_status(error_of(reply.failure)))
    return message


def to_metadata(operation: Operation) -> pb.PredictionMetadata:
    """Return how far an operation has come."""
    ended_ms = operation.ended_ms
    return pb.PredictionMetadata(
        model=operation.job.model,
        state=_STATES[operation.progress],
        attempt=operation.attempt,
        create_time=_timestamp(operation.created_ms),
        end_time=None if ended_ms is None else _timestamp(ended_ms),
        expire_time=_timestamp(operation.expires_ms),
        estimated_position=operation.position,
        request_id=operation.job.request_id,
    )


def _timestamp(milliseconds: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMilliseconds(milliseconds)
    return timestamp
