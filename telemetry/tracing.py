"""Traces, off unless the usual variables of OpenTelemetry ask for them.

    caller ──traceparent──▶ call ─▶ image ──in the job──▶ queue wait, decode, inference
                            └── front-end ──┘             └──────── worker ───────────┘

While they are off, nothing of OpenTelemetry is imported, and `tracer` is None: that is all
that calls and jobs look at. What makes spans is in `tracing_sdk.py`.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from telemetry.tracing_sdk import Tracer

log = structlog.get_logger()

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Variables that say where spans go; one of them, or that of exporters, turns tracing on."""

EXPORTERS: Final = "OTEL_TRACES_EXPORTER"
"""Variable that says how spans go there, such as `otlp`; `none` turns tracing off."""

DISABLED: Final = "OTEL_SDK_DISABLED"
"""Variable that turns tracing off, whatever the others say."""

FLUSH_S: Final = 3.0
"""How long a process that ends waits for the collector to take its last spans, seconds."""

tracer: "Tracer | None" = None
"""Makes the spans of this process; None: nobody asked for any."""


class CannotTrace(Exception):
    """Spans were asked for, and there is nothing that could send them."""


def is_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether spans are asked for. A variable that is empty says nothing."""
    if environment.get(DISABLED, "").strip().lower() == "true":
        return False
    exporters = environment.get(EXPORTERS, "").strip()
    if exporters:
        return exporters != "none"
    return any(environment.get(name, "").strip() for name in ENDPOINTS)


@contextmanager
def recorded(service: str, *, instance: str) -> Iterator[None]:
    """Record spans while inside, if they are asked for; then send those that wait.

    Args:
        service: which of ours this is; `OTEL_SERVICE_NAME` replaces `despacho-<service>`.
        instance: name of this process.

    Raises:
        CannotTrace: the packages are not installed, or the variables are no good.
    """
    global tracer  # noqa: PLW0603 - one for the process, like the log and the metrics
    if not is_wanted():
        yield
        return
    try:
        from telemetry.tracing_sdk import Tracer  # noqa: PLC0415 - the switch is here

        tracer = Tracer(f"despacho-{service}", instance=instance)
    except ImportError as error:
        raise CannotTrace(
            f"tracing is configured, but {error.name} is not installed:"
            " pip install -r requirements-tracing.txt"
        ) from error
    except ValueError as error:
        # Some variables are read when the SDK is imported, some when it is made.
        raise CannotTrace(f"OpenTelemetry refuses its variables (OTEL_*): {error}") from error
    log.info("tracing", exporters=tracer.exporters)
    try:
        yield
    finally:
        # What still runs makes spans that nobody sends, which does no harm.
        ending, tracer = tracer, None
        if not ending.close(within_s=FLUSH_S):
            log.warning("spans lost: the collector did not take them in time")


def is_sampled(traceparent: str) -> bool:
    """Return whether a trace context, which may be empty, is of a trace that is recorded."""
    return bool(traceparent) and bool(int(traceparent[-2:], 16) & 1)


def trace_id_of(traceparent: str) -> str:
    """Return the trace of a trace context; both may be empty."""
    return traceparent[3:35]
