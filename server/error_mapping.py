"""Turns whatever a call raises into a status, once and for all calls."""

import asyncio
from typing import Any, NoReturn

import grpc
import structlog
from google.rpc import status_pb2

from dispatch.errors import DespachoError
from server import cancellation
from server.call_record import CallRecord
from server.status import CODES, is_expected, reason_for, to_status, to_trailers
from server.tally import TALLY

log = structlog.get_logger(__name__)


def status_and_log(error: BaseException, record: CallRecord) -> status_pb2.Status:
    """Return what the caller is told of `error`; count it, and log what the caller is not told."""
    if not is_expected(error):
        log.error(
            "unexpected error",
            exc_info=error,
            method=record.method,
            request_id=record.request_id,
            trace_id=record.trace_id,
        )
    TALLY.failed(record.model, reason_for(error))
    return to_status(error)


async def end_call(
    error: BaseException, record: CallRecord, context: grpc.aio.ServicerContext[Any, Any]
) -> NoReturn:
    """End the call with the status of what its handler raised.

    Raises:
        AbortError: by which gRPC knows that the call has its status.
        BaseError, CancelledError: `error`, if it is no failure of ours.
    """
    if isinstance(error, grpc.aio.BaseError):
        # gRPC's own: the call has its status already, or the connection is gone.
        raise error
    if isinstance(error, asyncio.CancelledError) and cancellation.was_asked_for():
        raise error
    status = status_and_log(error, record)
    record.reason = reason_for(error)
    if isinstance(error, DespachoError):
        record.worker = error.worker
    without_frames(error)
    await context.abort(
        CODES[status.code],
        status.message,
        (*to_trailers(status), *record.trailers),
    )


def without_frames(error: BaseException) -> None:
    """Let an error forget where it was raised, and what was there, such as an image.

    gRPC keeps what ends a call with the call, and the call is in the frames through which that
    went: a ring that stays until the next collection of garbage, with all that hangs on it.
    """
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and each.__traceback__ is not None:
            each.__traceback__ = None
            left += (each.__cause__, each.__context__)


def end_well(record: CallRecord, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Add what a caller is told at the end of a call that went well.

    The ids go into the trailers and not into the initial metadata: a call
    whose initial metadata has been received is committed, so sending it would
    switch off the retries of every gRPC client.
    """
    context.set_trailing_metadata(record.trailers)
