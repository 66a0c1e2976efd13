"""One log line per call, and its place in the counts."""

import asyncio
import math
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final
from urllib.parse import unquote

import grpc
import structlog

from server.call_record import CallRecord
from server.call_spans import end_call
from server.grpc_metrics import CALLS
from telemetry.json_lines import JsonLines, Value

log = structlog.get_logger(__name__)

OURS_TO_END: Final = frozenset(
    {
        "/inference.GRPCInferenceService/ModelInfer",
        "/prediction.v1.PredictionService/Predict",
    }
)
"""Methods that are slow only if this system is; others take as long as their callers like."""


class Logged:
    """Logs the call when it has ended, however it ended.

    A class, as a generator would be one more frame for each call to go through.
    """

    __slots__ = ("_context", "_peer", "_record")

    def __init__(self, record: CallRecord, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._record = record
        self._context = context
        # Read now: a connection that is gone has no peer. gRPC quotes it as in a URI.
        self._peer = unquote(context.peer())
        CALLS.began(record.method)

    def __enter__(self) -> None:
        """Do nothing yet."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write the line."""
        write_line(self._record, self._status(exc), peer=self._peer)

    def _status(self, error: BaseException | None) -> grpc.StatusCode:
        if isinstance(error, grpc.aio.AbortError):
            return self._context.code()
        if isinstance(error, (asyncio.CancelledError, grpc.aio.BaseError)):
            is_late = self._context.time_remaining() == 0
            return grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
        return grpc.StatusCode.OK


def write_line(record: CallRecord, status: grpc.StatusCode, *, peer: str) -> None:
    """Count a call that ended with `status`, and write its line."""
    name, duration_s = _NAMES[status], record.duration_s
    CALLS.ended(record.method, name, duration_s)
    fields: dict[str, Value] = {
        "method": record.method,
        "request_id": record.request_id,
        "trace_id": record.trace_id,
        "caller": record.caller,
        "model": record.model,
        "status": name,
        "reason": record.reason,
        "images": record.images,
        "failed_images": record.failed_images,
        "duration_ms": round(duration_s * 1000, 3),
        "peer": peer,
    }
    reply = record.reply
    if record.worker:
        fields["worker"] = record.worker
    elif reply is not None and record.images == 1:
        answer = reply.answer
        fields["worker"] = reply.worker
        fields["queue_ms"] = answer.queue_us / 1000
        fields["decode_ms"] = answer.decode_us / 1000
        fields["inference_ms"] = answer.inference_us / 1000
        fields["batch_size"] = answer.batch_size
        fields["attempt"] = reply.attempt
    if record.operation:
        fields["operation"] = record.operation
        fields["operation_request_id"] = record.operation_request_id
    if record.span is not None:
        end_call(record.span, status, fields)
    if record.is_infrastructure:
        # Probes come every few seconds, for ever.
        log.debug("call", **fields)
    elif duration_s >= _slow_s and record.method in OURS_TO_END:
        log.warning("call", **fields)
    else:
        _write(fields)


def warn_of_slow(after_s: float) -> None:
    """From now on, write the line of a call that takes long as a warning.

    Args:
        after_s: how long that is, seconds; 0: no call is slow.
    """
    global _slow_s  # noqa: PLW0603 - as below
    _slow_s = after_s or math.inf


def write_quickly(lines: JsonLines, write: Callable[[str], None]) -> None:
    """From now on, make the lines of calls without `structlog`.

    Args:
        lines: makes them.
        write: takes them.
    """
    global _write  # noqa: PLW0603 - one log for the process, like that of structlog
    _write = lambda fields: write(lines.line("call", "info", fields))  # noqa: E731 - typed below


def _through_structlog(fields: dict[str, Value]) -> None:
    log.info("call", **fields)


_write: Callable[[dict[str, Value]], None] = _through_structlog

_slow_s = math.inf

_NAMES: Final = {code: code.name for code in grpc.StatusCode}
"""An enum looks its names up in Python."""
