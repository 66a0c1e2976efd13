"""A collector of OpenTelemetry for tests: takes spans over gRPC from real processes."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class Seen:
    """One span, as it arrived."""

    name: str
    kind: str
    service: str
    instance: str
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    is_error: bool


class Collector(TraceServiceServicer):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.url = ""
        self._spans: list[Seen] = []
        self._grew = threading.Condition()

    def Export(  # noqa: N802 - from the proto
        self, request: ExportTraceServiceRequest, context: object
    ) -> ExportTraceServiceResponse:
        del context
        with self._grew:
            self._spans += _seen(request)
            self._grew.notify_all()
        return ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Seen]:
        return list(self._spans)

    def of(self, trace_id: str) -> list[Seen]:
        """Return the spans of one trace, in the order in which they began."""
        spans = [span for span in self.spans if span.trace_id == trace_id]
        return sorted(spans, key=lambda span: span.began_ns)

    def wait(
        self, trace_id: str, condition: Callable[[list[Seen]], bool], limit_s: float = 20
    ) -> list[Seen]:
        """Return the spans of a trace as soon as they are what is waited for."""
        with self._grew:
            if not self._grew.wait_for(lambda: condition(self.of(trace_id)), limit_s):
                raise AssertionError(f"only these spans came: {self.of(trace_id)}")
            return self.of(trace_id)

    def wait_for(self, trace_id: str, *names: str, limit_s: float = 20) -> list[Seen]:
        """Return the spans of a trace as soon as those of all these names are there."""
        wanted = sorted(names)
        return self.wait(
            trace_id, lambda spans: sorted(span.name for span in spans) == wanted, limit_s
        )


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector while inside."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    collector.url = f"http://127.0.0.1:{port}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


def _seen(request: ExportTraceServiceRequest) -> Iterator[Seen]:
    for resource in request.resource_spans:
        of_process = _attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Seen(
                    name=span.name,
                    kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    service=of_process["service.name"],
                    instance=of_process["service.instance.id"],
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    began_ns=span.start_time_unix_nano,
                    ended_ns=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}
