"""What is known of one call while it runs: its ids, and what the access log will say."""

import os
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Self

import grpc

from server.validation import is_request_id

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
    """The caller's trace context; empty if there is none or it is not one."""

    caller: str = ANONYMOUS
    """Name of its API key, or subject of its certificate; owns the operations it submits."""

    model: str = ""
    """The model that was asked, in a stream the last one; empty until known."""

    reason: str = ""
    """Why the call failed, as in `ErrorInfo.reason`; empty if it did not."""

    images: int = 0
    """Images answered; more than one only in a stream."""

    failed_images: int = 0
    """Images of a stream that failed alone."""

    started_s: float = field(default_factory=time.monotonic)
    """When the call arrived, seconds of the monotonic clock."""

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
        return cls(
            details.method,
            request_id if is_request_id(request_id) else new_request_id(),
            traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else "",
        )

    @property
    def trailers(self) -> tuple[tuple[str, str], ...]:
        """What the caller is told of the call at its end, however it ended.

        A trace that the caller did not begin is not made up: nobody would know of it.
        """
        if self.traceparent:
            return ((REQUEST_ID_KEY, self.request_id), (TRACEPARENT_KEY, self.traceparent))
        return ((REQUEST_ID_KEY, self.request_id),)

    @property
    def trace_id(self) -> str:
        """The trace's part of `traceparent`; empty if there is none."""
        return self.traceparent.split("-")[1] if self.traceparent else ""

    @property
    def is_infrastructure(self) -> bool:
        """Whether this is a health check or reflection: let in while draining, hardly logged."""
        return self.method.startswith("/grpc.")

    @property
    def duration_s(self) -> float:
        """How long the call has been running, seconds."""
        return time.monotonic() - self.started_s


CURRENT: Final[ContextVar[CallRecord]] = ContextVar("despacho_call")
"""The call that the running code belongs to, set around every handler."""


def new_request_id() -> str:
    """Return an id for a request that has none."""
    return os.urandom(16).hex()
