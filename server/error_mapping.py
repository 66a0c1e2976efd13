"""Turns whatever a call raises into a status, once and for all calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog
from google.rpc import status_pb2

from server import cancellation
from server.call_record import REQUEST_ID_KEY, CallRecord
from server.status import CODES, is_expected, reason_of, to_status, to_trailers

log = structlog.get_logger(__name__)


def status_and_log(error: BaseException, record: CallRecord) -> status_pb2.Status:
    """Return what the caller is told of `error`; log what the caller is not told."""
    if not is_expected(error):
        log.error(
            "unexpected error",
            exc_info=error,
            method=record.method,
            request_id=record.request_id,
            trace_id=record.trace_id,
        )
    return to_status(error)


@asynccontextmanager
async def errors_as_status(
    record: CallRecord, context: grpc.aio.ServicerContext[Any, Any]
) -> AsyncIterator[None]:
    """End the call with the status of whatever is raised inside.

    The request id goes into the trailers and not into the initial metadata: a call
    whose initial metadata has been received is committed, so sending it would
    switch off the retries of every gRPC client.
    """
    try:
        yield
    except grpc.aio.BaseError:
        # gRPC's own: the call has its status already, or the connection is gone.
        raise
    except asyncio.CancelledError as error:
        if cancellation.was_asked_for():
            raise
        failure: BaseException = error
    except Exception as error:  # noqa: BLE001 - the last line of defence
        failure = error
    else:
        context.set_trailing_metadata(((REQUEST_ID_KEY, record.request_id),))
        return
    status = status_and_log(failure, record)
    record.reason = reason_of(status)
    await context.abort(
        CODES[status.code],
        status.message,
        (*to_trailers(status), (REQUEST_ID_KEY, record.request_id)),
    )
