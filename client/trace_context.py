"""The trace that the caller's code is in, told to the server with each call.

Only if that code uses OpenTelemetry: the client needs none of it, and imports none of it.
"""

import sys
from typing import Any, Final

KEY: Final = "traceparent"
"""Metadata: a trace context in the form of the W3C."""


def current() -> str:
    """Return the trace context of the current span; empty if there is none."""
    # Where nobody has imported it, nobody has begun a span.
    trace: Any = sys.modules.get("opentelemetry.trace")
    # While it is being imported in another thread, it may not have everything yet.
    if trace is None or not hasattr(trace, "get_current_span"):
        return ""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
