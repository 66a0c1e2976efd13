"""What a caller sees of an error: one table, and the standard details.

Every status has a `google.rpc.ErrorInfo`; what else it has depends on what the
caller can do about the error.
"""

import math
import random
from functools import cache, lru_cache
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from dispatch import errors

DOMAIN: Final = "despacho"
"""`ErrorInfo.domain` of every error."""

INTERNAL_REASON: Final = "INTERNAL"
"""`ErrorInfo.reason` of what nobody expected."""

INTERNAL_MESSAGE: Final = "internal error"
"""All that a caller is told of what nobody expected; the log has the rest."""

INTERNAL_ADVICE: Final = (
    "Give the operator the request id, which is in the trailer `x-request-id`:"
    " the log of the front-end has the traceback under it."
)
"""What a caller should do about what nobody expected."""

ADVICE_KEY: Final = "advice"
"""In `ErrorInfo.metadata`: what to do next."""

KEPT: Final = 256
"""How many refusals are remembered, to be told to others, too."""

# Details travel in the trailers, once as they are and once in base64, and clients
# refuse more than 8 KB of metadata. A message may quote what the caller sent.
MAX_TEXT_BYTES: Final = 400
"""Longest text in a status, bytes of UTF-8; the rest is cut off."""

CODE: Final[dict[type[errors.DespachoError], grpc.StatusCode]] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ImageEmpty: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ImageUndecodable: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ImageFormatUnsupported: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ImageTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RequestIdReused: grpc.StatusCode.ALREADY_EXISTS,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.OperationNotFound: grpc.StatusCode.NOT_FOUND,
    errors.DeadLetterNotFound: grpc.StatusCode.NOT_FOUND,
    errors.DurabilityUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelInUse: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CredentialsMissing: grpc.StatusCode.UNAUTHENTICATED,
    errors.CredentialsInvalid: grpc.StatusCode.UNAUTHENTICATED,
    errors.ScopeMissing: grpc.StatusCode.PERMISSION_DENIED,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NoWorker: grpc.StatusCode.UNAVAILABLE,
    errors.ModelLoading: grpc.StatusCode.UNAVAILABLE,
    errors.BrokerUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Draining: grpc.StatusCode.UNAVAILABLE,
    errors.ExpiredInQueue: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.OperationCancelled: grpc.StatusCode.CANCELLED,
    errors.InferenceFailed: grpc.StatusCode.INTERNAL,
    errors.JobPoisoned: grpc.StatusCode.INTERNAL,
    # Never meant to leave the project: told like any other surprise.
    errors.OutcomeUnknown: grpc.StatusCode.INTERNAL,
}
"""Each leaf of the error tree; a test demands that none is missing."""

CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
"""gRPC's codes by number."""


def is_expected(error: BaseException) -> bool:
    """Say whether the caller may be told what happened."""
    return type(error) in CODE and not isinstance(error, errors.OutcomeUnknown)


def reason_for(error: BaseException) -> str:
    """Return the `ErrorInfo.reason` that the caller is told of `error`."""
    if isinstance(error, errors.DespachoError) and is_expected(error):
        return error.reason
    return INTERNAL_REASON


def to_status(error: BaseException) -> status_pb2.Status:
    """Return what the caller is told of `error`; of a surprise only that it was one.

    Do not change it: others may be told the same.
    """
    if type(error) is errors.QueueFull:
        # In a flood thousands are told the same, and to write it takes longer than the rest.
        return _queue_full(error.subject, str(error), _milliseconds(error.retry_after_s))
    return _to_status(error)


@lru_cache(maxsize=KEPT)
def _queue_full(subject: str, message: str, retry_after_ms: int) -> status_pb2.Status:
    return _to_status(errors.QueueFull(subject, message, retry_after_s=retry_after_ms / 1000))


def _to_status(error: BaseException) -> status_pb2.Status:
    if not is_expected(error) or not isinstance(error, errors.DespachoError):
        info = _packed_info(INTERNAL_REASON, INTERNAL_ADVICE)
        return _status(grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE, info)
    message = shortened(str(error))
    details: list[Message] = []
    if isinstance(error, errors.InvalidRequest):
        details.append(_bad_request(error.field, message))
    elif isinstance(error, errors.NotFound):
        details.append(_resource_info(error))
    elif isinstance(error, errors.Retryable):
        details.append(_retry_info(error.retry_after_s))
    if isinstance(error, errors.QueueFull | errors.RateLimited):
        details.append(_quota_failure(error.subject, message))
    info = _packed_info(error.reason, error.advice)
    return _status(CODE[type(error)], message, info, *details)


def to_trailers(status: status_pb2.Status) -> tuple[tuple[str, str | bytes], ...]:
    """Return the trailing metadata that goes with `status`."""
    encoded = status.SerializeToString()
    details = ("grpc-status-details-bin", encoded)
    retry_after_ms = _retry_after_ms(encoded)
    if retry_after_ms is None:
        return (details,)
    # Obeyed by gRPC's own retries, which do not read RetryInfo and add no jitter:
    # those refused in the same moment must not come back in the same moment.
    spread = 1 + random.random() / 2  # noqa: S311 - not for secrets
    return (details, ("grpc-retry-pushback-ms", str(round(retry_after_ms * spread))))


@lru_cache(maxsize=KEPT)
def _retry_after_ms(encoded: bytes) -> int | None:
    """Return what an encoded status says of coming back; None if it says nothing."""
    retry = error_details_pb2.RetryInfo()
    for detail in status_pb2.Status.FromString(encoded).details:
        if detail.Unpack(retry):
            return int(retry.retry_delay.ToMilliseconds())
    return None


def reason_of(status: status_pb2.Status) -> str:
    """Return the `ErrorInfo.reason` of `status`; empty if it has none."""
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in status.details if detail.Unpack(info)), "")


def shortened(text: str) -> str:
    """Return as much of `text` as fits into a status."""
    return text.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")


def _status(
    code: grpc.StatusCode, message: str, info: any_pb2.Any, *details: Message
) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=message, details=[info])
    for detail in details:
        status.details.add().Pack(detail)
    return status


@cache
def _packed_info(reason: str, advice: str) -> any_pb2.Any:
    """Return what is the same for all errors of a kind: made once, as a flood has many."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata={ADVICE_KEY: advice})
    packed = any_pb2.Any()
    packed.Pack(info)
    return packed


def _bad_request(field: str, message: str) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
    return error_details_pb2.BadRequest(field_violations=[violation])


def _resource_info(error: errors.NotFound) -> error_details_pb2.ResourceInfo:
    return error_details_pb2.ResourceInfo(
        resource_type=error.kind, resource_name=shortened(error.name)
    )


def _retry_info(retry_after_s: float) -> error_details_pb2.RetryInfo:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(_milliseconds(retry_after_s))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _milliseconds(retry_after_s: float) -> int:
    # Rounded up: a caller that comes back early is refused once more. First to something
    # finer, as 0.007 s are a little more than 7 ms to a computer.
    return max(0, math.ceil(round(retry_after_s * 1000, 6)))


def _quota_failure(subject: str, message: str) -> error_details_pb2.QuotaFailure:
    violation = error_details_pb2.QuotaFailure.Violation(subject=subject, description=message)
    return error_details_pb2.QuotaFailure(violations=[violation])
