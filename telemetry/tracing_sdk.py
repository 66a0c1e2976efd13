"""Spans, made and sent by the SDK of OpenTelemetry. Imported only if somebody asks for them."""

import os
import threading
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Final, Literal

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from telemetry.tracing import EXPORTERS, CannotTrace

Kind = Literal["server", "producer", "consumer", "internal"]
"""Which side of which kind of exchange a span is."""

Value = str | int | float

PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

SAMPLER: Final = "OTEL_TRACES_SAMPLER"

SAMPLERS: Final = tuple(
    parent + name
    for parent in ("", "parentbased_")
    for name in ("always_on", "always_off", "traceidratio")
)
"""Those that the SDK knows. In the place of any other it would record all that callers allow."""

GIVE_UP_S: Final = 0.5
"""How long sending may take to notice that it was given up, seconds."""

_OTLP: Final = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_KINDS: Final = {
    "server": SpanKind.SERVER,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
    "internal": SpanKind.INTERNAL,
}
_NOBODY: Final = Context()


class Span:
    """One span, in the terms of its users."""

    __slots__ = ("_span",)

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def is_recording(self) -> bool:
        """Whether anybody will see it: it is part of a trace that was chosen."""
        return self._span.is_recording()

    @property
    def traceparent(self) -> str:
        """The trace context of what it causes."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def name(self, name: str) -> None:
        """Give it another name."""
        self._span.update_name(name)

    def add(self, attributes: Mapping[str, Value]) -> None:
        """Say more of it."""
        self._span.set_attributes(attributes)

    def fail(self, reason: str) -> None:
        """Mark it as failed, for a stable reason."""
        self._span.set_attribute("error.type", reason)
        self._span.set_status(Status(StatusCode.ERROR, reason))

    def end(self, at_ns: int | None = None) -> None:
        """End it: now, or at a time in nanoseconds since 1970."""
        self._span.end(at_ns)


class Tracer:
    """Makes spans, and sends them from a thread of its own.

    What waits to be sent is bounded (`OTEL_BSP_MAX_QUEUE_SIZE`): if nobody takes it, the
    oldest is dropped. Sampler, limits and batches are those of the environment, too.
    """

    def __init__(self, service: str, *, instance: str) -> None:
        """Begin.

        Args:
            service: name of the service, unless the environment has one.
            instance: name of this process.

        Raises:
            CannotTrace: there is no sampler or exporter of that name, or the exporter refuses its
                settings.
            ValueError: the SDK refuses its own.
        """
        check_sampler(os.environ)
        ours = {"service.name": service, "service.instance.id": instance}
        theirs = OTELResourceDetector().detect().attributes
        self._provider = TracerProvider(
            resource=Resource.create({**ours, **theirs}), shutdown_on_exit=False
        )
        self.follows_callers = isinstance(self._provider.sampler, ParentBased)
        """Whether a caller's decision not to record a trace is ours, too."""

        self.exporters = exporter_names(os.environ)
        """Names of what sends the spans."""

        self._exporters = [_exporter(name) for name in self.exporters]
        for exporter in self._exporters:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("despacho")

    @property
    def resource(self) -> Mapping[str, object]:
        """What is said of this process with its spans."""
        return self._provider.resource.attributes

    def begin(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, Value],
        *,
        parent: str,
        at_ns: int | None = None,
    ) -> Span:
        """Begin a span; it must be ended, or nobody sees it.

        Args:
            name: what happens, one of few.
            kind: which side of it this is.
            attributes: what is known already, and what samplers see.
            parent: trace context of what caused it; empty: it begins a trace.
            at_ns: when it began, nanoseconds since 1970; None: now.
        """
        return Span(
            self._tracer.start_span(
                name, _context_of(parent), _KINDS[kind], attributes, start_time=at_ns
            )
        )

    def close(self, *, within_s: float) -> bool:
        """Send what waits, and stop; return whether that was done in time.

        Args:
            within_s: how long it may take, seconds.
        """
        # The SDK would wait for half a minute.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(within_s)
        if not closing.is_alive():
            return True
        for exporter in self._exporters:
            exporter.shutdown()
        closing.join(GIVE_UP_S)
        return False


def check_sampler(environment: Mapping[str, str]) -> None:
    """Accept a sampler that there is, or none.

    Raises:
        CannotTrace: nobody knows it.
    """
    name = environment.get(SAMPLER, "")
    if name and name.lower() not in SAMPLERS:
        raise CannotTrace(f"{SAMPLER}: {name!r} is none of {', '.join(SAMPLERS)}")


def exporter_names(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the exporters that an environment asks for, as packages announce them.

    Raises:
        CannotTrace: it asks for a protocol that nobody knows.
    """
    wanted = environment.get(EXPORTERS, "").strip() or "otlp"
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), "grpc")
    if protocol not in _OTLP:
        raise CannotTrace(f"{PROTOCOLS[1]}: {protocol!r} is none of {', '.join(_OTLP)}")
    names = [name.strip() for name in wanted.split(",")]
    return [_OTLP[protocol] if name == "otlp" else name for name in names]


def _exporter(name: str) -> SpanExporter:
    found = [*entry_points(group="opentelemetry_traces_exporter", name=name)]
    if not found:
        raise CannotTrace(
            f"no installed package has the exporter {name!r}; requirements-tracing.txt has"
            f" {_OTLP['grpc']}"
        )
    try:
        exporter: SpanExporter = found[0].load()()
    except Exception as error:
        raise CannotTrace(f"the exporter {name!r} cannot be used: {error}") from error
    return exporter


def _context_of(traceparent: str) -> Context:
    if not traceparent:
        return _NOBODY
    return trace.set_span_in_context(
        NonRecordingSpan(
            SpanContext(
                trace_id=int(traceparent[3:35], 16),
                span_id=int(traceparent[36:52], 16),
                is_remote=True,
                trace_flags=TraceFlags(int(traceparent[53:], 16)),
            )
        ),
        _NOBODY,
    )
