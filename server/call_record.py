"""What is known of one call while it runs: its ids, and what the access log will say."""

import re
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import grpc

from despacho.job.v1.job_pb2 import Reply
from server.call_spans import begin_call
from server.ids import new_id
from server.validation import is_request_id
from telemetry import tracing

if TYPE_CHECKING:
    from telemetry.tracing_sdk import Span, Tracer

REQUEST_ID_KEY: Final = "x-request-id"
"""Metadata: the caller's id for the call, and its echo in the trailers."""

TRACEPARENT_KEY: Final = "traceparent"
"""Metadata: the W3C trace context of the caller, and its echo in the trailers."""

ANONYMOUS: Final = "anonymous"
"""Who a caller is that does not say."""

# Version ff and ids of zeros only are not valid. A later version may have more behind;
# what that means nobody here knows, so it is not passed on.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


@dataclass(slots=True)
class CallRecord:
    """One call. The service adds what it learns."""

    method: str
    """Full name, such as `/prediction.v1.PredictionService/Predict`."""

    request_id: str
    """The caller's, or one made here."""

    traceparent: str = ""
    """The trace context of what the call causes: that of its span or, if it has none, the caller's.
    Empty if there is none, or the caller's is not one."""

    echoed_traceparent: str = ""
    """The trace context that the caller gets back."""

    caller: str = ANONYMOUS
    """Name of its API key, or subject of its certificate; owns the operations it submits."""

    model: str = ""
    """The model that was asked, in a stream the last one; empty until known."""

    reason: str = ""
    """Why the call failed, as in `ErrorInfo.reason`; empty if it did not."""

    worker: str = ""
    """The worker that said so; empty if none did."""

    reply: Reply | None = None
    """The worker's answer, of several images that of one; None if there is none."""

    images: int = 0
    """Images answered; more than one only in a stream."""

    failed_images: int = 0
    """Images of a stream that failed alone."""

    operation: str = ""
    """Id of the operation that the call submitted; empty if it did not."""

    operation_request_id: str = ""
    """What the lines of workers about that operation have as `request_id`."""

    started_s: float = field(default_factory=time.monotonic)
    """When the call arrived, seconds of the monotonic clock."""

    span: "Span | None" = None
    """Its span; None: nobody will see one."""

    @classmethod
    def of(cls, details: grpc.HandlerCallDetails) -> Self:
        """Begin the record of a call that has just arrived."""
        request_id = traceparent = ""
        for key, value in details.invocation_metadata:
            if key == REQUEST_ID_KEY:
                request_id = str(value)
            elif key == TRACEPARENT_KEY:
                traceparent = str(value)
        # A bad header may be the work of some proxy: it is replaced, not refused.
        if traceparent and not _TRACEPARENT.fullmatch(traceparent):
            traceparent = ""
        record = cls(
            details.method,
            request_id if is_request_id(request_id) else new_id(),
            traceparent,
            traceparent,
        )
        if tracing.tracer is not None and not record.is_infrastructure:
            record.trace(tracing.tracer)
        return record

    def trace(self, tracer: "Tracer") -> None:
        """Begin the span of the call, if its trace is one that is recorded."""
        if self.traceparent and tracer.follows_callers and not tracing.is_sampled(self.traceparent):
            return  # to ask the sampler, which says no, takes as long as a span
        span = begin_call(tracer, self.method, parent=self.traceparent)
        if span.is_recording:
            self.span = span
            self.traceparent = span.traceparent
            # So that a caller without a trace can find this one.
            self.echoed_traceparent = self.echoed_traceparent or span.traceparent
        elif self.traceparent:
            # The decision goes along: nobody behind records it, either.
            self.traceparent = span.traceparent

    @property
    def trailers(self) -> tuple[tuple[str, str], ...]:
        """What the caller is told of the call at its end, however it ended.

        A trace that nobody records is not made up: nobody would know of it.
        """
        echoed = self.echoed_traceparent
        if echoed:
            return ((REQUEST_ID_KEY, self.request_id), (TRACEPARENT_KEY, echoed))
        return ((REQUEST_ID_KEY, self.request_id),)

    @property
    def trace_id(self) -> str:
        """The trace's part of `traceparent`; empty if there is none."""
        return tracing.trace_id_of(self.traceparent)

    @property
    def is_infrastructure(self) -> bool:
        """Whether this is a health check or reflection: let in while draining, hardly logged."""
        return self.method.startswith("/grpc.")

    @property
    def duration_s(self) -> float:
        """How long the call has been running, seconds."""
        return time.monotonic() - self.started_s


@dataclass(slots=True)
class ImageRecord:
    """One image of a call that has many, at a time when others of it are in work."""

    model: str = ""
    """The model that was asked; empty until known."""


CURRENT: Final[ContextVar[CallRecord]] = ContextVar("despacho_call")
"""The call that the running code belongs to, set around every handler."""
