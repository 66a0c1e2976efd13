"""From a gRPC status to an error of `errors.py`: the one place that maps them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from . import errors

Trailers: TypeAlias = Iterable[tuple[str, str | bytes]]
DetailT = TypeVar("DetailT", bound=Message)

CLASS_OF_CODE: Final[dict[grpc.StatusCode, type[errors.DespachoError]]] = {
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.UNKNOWN: errors.InternalError,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.InvalidInput,
    grpc.StatusCode.PERMISSION_DENIED: errors.AccessDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Overloaded,
    grpc.StatusCode.FAILED_PRECONDITION: errors.InvalidInput,
    grpc.StatusCode.ABORTED: errors.Unavailable,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidInput,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unsupported,
    grpc.StatusCode.INTERNAL: errors.InternalError,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DATA_LOSS: errors.InternalError,
    grpc.StatusCode.UNAUTHENTICATED: errors.AccessDenied,
}
"""Every code but OK."""

CLASS_OF_REASON: Final[dict[str, type[errors.DespachoError]]] = {
    "IMAGE_EMPTY": errors.InvalidImage,
    "IMAGE_UNDECODABLE": errors.InvalidImage,
    "IMAGE_FORMAT_UNSUPPORTED": errors.InvalidImage,
    "IMAGE_TOO_LARGE": errors.InvalidImage,
    "IMAGE_UNREADABLE": errors.InvalidImage,
}
"""Reasons that say more than their code."""

DOMAIN: Final = "despacho"
"""`ErrorInfo.domain` of a Despacho server; reasons of other domains are not ours."""

ADVICE_KEY: Final = "advice"
"""In `ErrorInfo.metadata`: what to do next."""

_CODE_OF_NUMBER: Final = {code.value[0]: code for code in grpc.StatusCode}
_DETAILS_TRAILER: Final = "grpc-status-details-bin"
_PUSHBACK_TRAILER: Final = "grpc-retry-pushback-ms"


@contextmanager
def translated(request_id: str = "") -> Iterator[None]:
    """Turn a `grpc.RpcError` raised inside into a `DespachoError`."""
    try:
        yield
    except grpc.RpcError as error:
        # It is the call itself: the frames in its traceback hold it, and the request with it.
        error.__traceback__ = None
        raise from_rpc_error(error, request_id=request_id) from error


def from_rpc_error(error: grpc.RpcError, *, request_id: str = "") -> errors.DespachoError:
    """Translate the end of a call; `request_id` is used if the server names none."""
    trailers: dict[str, str | bytes] = dict(cast(Trailers, error.trailing_metadata() or ()))
    status = _details(trailers.get(_DETAILS_TRAILER, b""))
    status.code = error.code().value[0]
    status.message = error.details() or error.code().name
    translation = from_status(status, request_id=request_id)
    if translation.retry_after_s is None:
        translation.retry_after_s = _pushback_s(trailers.get(_PUSHBACK_TRAILER, ""))
    return translation


def from_status(status: status_pb2.Status, *, request_id: str = "") -> errors.DespachoError:
    """Translate a status with its details, such as one item of a stream."""
    code = _CODE_OF_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
    info = _detail(status, error_details_pb2.ErrorInfo())
    is_ours = info.domain == DOMAIN
    reason = info.reason if is_ours else ""
    retry = _detail(status, error_details_pb2.RetryInfo())
    violations = _detail(status, error_details_pb2.BadRequest()).field_violations
    return _class_of(code, reason, status.message)(
        status.message,
        code=code,
        reason=reason,
        retry_after_s=retry.retry_delay.ToTimedelta().total_seconds()
        if retry.HasField("retry_delay")
        else None,
        field=violations[0].field if violations else "",
        advice=info.metadata.get(ADVICE_KEY, "") if is_ours else "",
        request_id=_detail(status, error_details_pb2.RequestInfo()).request_id or request_id,
    )


def _class_of(code: grpc.StatusCode, reason: str, message: str) -> type[errors.DespachoError]:
    if reason:
        return CLASS_OF_REASON.get(reason, CLASS_OF_CODE.get(code, errors.InternalError))
    if code is grpc.StatusCode.UNAVAILABLE:
        # Our server always gives a reason; without one the transport speaks.
        return errors.Unreachable
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message:
        # The transport of a server with a lower limit refused the message before
        # any of our code saw it. The text is all there is to tell it from overload.
        return errors.InvalidImage
    return CLASS_OF_CODE.get(code, errors.InternalError)


def _details(trailer: str | bytes) -> status_pb2.Status:
    status = status_pb2.Status()
    try:
        status.ParseFromString(trailer if isinstance(trailer, bytes) else trailer.encode())
    except DecodeError:
        # A proxy may have cut it. Code and message are still worth reporting.
        return status_pb2.Status()
    return status


def _detail(status: status_pb2.Status, empty: DetailT) -> DetailT:
    """Return the first detail of the type of `empty`, or `empty`."""
    for packed in status.details:
        if packed.Is(empty.DESCRIPTOR) and packed.Unpack(empty):
            break
    return empty


def _pushback_s(trailer: str | bytes) -> float | None:
    try:
        pushback_ms = int(trailer)
    except ValueError:
        return None
    # Negative means "do not retry" to gRPC; it is not a time.
    return pushback_ms / 1000 if pushback_ms >= 0 else None
