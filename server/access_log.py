"""One log line per call."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import structlog

from server.call_record import CallRecord

log = structlog.get_logger(__name__)


@contextmanager
def logged(record: CallRecord, context: grpc.aio.ServicerContext[Any, Any]) -> Iterator[None]:
    """Log the call when it has ended, however it ended."""
    # Read now: a connection that is gone has no peer.
    peer = context.peer()
    status = grpc.StatusCode.OK
    try:
        yield
    except grpc.aio.AbortError:
        status = context.code()
        raise
    except (asyncio.CancelledError, grpc.aio.BaseError):
        is_late = context.time_remaining() == 0
        status = grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
        raise
    finally:
        write_line(record, status, peer=peer)


def write_line(record: CallRecord, status: grpc.StatusCode, *, peer: str) -> None:
    """Write the line of a call that ended with `status`."""
    log.log(
        # Probes come every few seconds, for ever.
        logging.DEBUG if record.is_infrastructure else logging.INFO,
        "call",
        method=record.method,
        request_id=record.request_id,
        trace_id=record.trace_id,
        model=record.model,
        status=status.name,
        reason=record.reason,
        images=record.images,
        failed_images=record.failed_images,
        duration_ms=round(record.duration_s * 1000, 3),
        peer=peer,
    )
