"""Turns whatever a call raises into a status, once and for all calls."""

import asyncio
from typing import Any, Final, NoReturn

import grpc
import structlog
from google.rpc import status_pb2

from dispatch.errors import CredentialsMissing, DespachoError
from server import cancellation
from server.call_record import CallRecord
from server.status import CODES, is_expected, reason_for, to_status, to_trailers
from server.tally import TALLY

log = structlog.get_logger(__name__)

ASKED_WITHOUT_A_KEY: Final = "/prediction.v1.PredictionService/ListModels"
"""What gateways call every half a minute in order to be refused (`gateway/key_demand.py`)."""


def status_and_log(error: BaseException, record: CallRecord, *, model: str) -> status_pb2.Status:
    """Return what the caller is told of `error`; count it, and log what the caller is not told.

    It forgets its frames then, as nobody asks for them any more.

    Args:
        error: what failed.
        record: the call it belongs to.
        model: the model that was asked, which need not be the last one of the call; empty: unknown.
    """
    if not is_expected(error):
        log.error(
            "unexpected error",
            exc_info=error,
            method=record.method,
            request_id=record.request_id,
            trace_id=record.trace_id,
        )
    is_wanted = isinstance(error, CredentialsMissing) and record.method == ASKED_WITHOUT_A_KEY
    if not is_wanted:
        TALLY.failed(model, reason_for(error))
    without_frames(error)
    return to_status(error)


async def end_call(
    error: BaseException, record: CallRecord, context: grpc.aio.ServicerContext[Any, Any]
) -> NoReturn:
    """End the call with the status of what its handler raised.

    Raises:
        AbortError: by which gRPC knows that the call has its status.
        BaseError, CancelledError: `error`, if it is no failure of ours.
    """
    try:
        if isinstance(error, grpc.aio.BaseError):
            # gRPC's own: the call has its status already, or the connection is gone.
            raise error.with_traceback(None)
        if isinstance(error, asyncio.CancelledError) and cancellation.was_asked_for():
            raise error.with_traceback(None)
        status = status_and_log(error, record, model=record.model)
        record.reason = reason_for(error)
        if isinstance(error, DespachoError):
            record.worker = error.worker
        await context.abort(
            CODES[status.code],
            status.message,
            (*to_trailers(status), *record.trailers),
        )
    except grpc.aio.AbortError as end:
        _forget_with_the_call(end)
        raise
    finally:
        # What is raised knows this frame. If this frame knew it, too, that would be a ring.
        del error


def without_frames(error: BaseException) -> None:
    """Let an error forget from where and what it came, and what was there, such as an image.

    The frames that it went through often know it, too, such as by the task that raised it. Such
    rings stay until the next collection of garbage.
    """
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        left += (each.__cause__, each.__context__)
        each.__traceback__ = each.__cause__ = each.__context__ = None


def _forget_with_the_call(end: BaseException) -> None:
    """Let what ends the call of the running task forget its frames when the task has ended.

    gRPC keeps it with the call, and the call is in the frames through which it goes: a ring that
    would stay until the next collection of garbage, with all that hangs on it.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a call is a task
    task.add_done_callback(lambda _: without_frames(end))


def end_well(record: CallRecord, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Add what a caller is told at the end of a call that went well.

    The ids go into the trailers and not into the initial metadata: a call
    whose initial metadata has been received is committed, so sending it would
    switch off the retries of every gRPC client.
    """
    context.set_trailing_metadata(record.trailers)
