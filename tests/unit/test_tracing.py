"""When spans are made, and what goes along with a job."""

from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider, sampling

from client import trace_context
from server.call_record import CallRecord
from telemetry import tracing
from telemetry.tracing import CannotTrace, is_sampled, is_wanted, trace_id_of
from telemetry.tracing_sdk import SAMPLERS, Tracer, check_sampler, exporter_names

TRACE_ID, SPAN_ID = "4b" * 16, "7a" * 8
SAMPLED, UNSAMPLED = (f"00-{TRACE_ID}-{SPAN_ID}-{flags}" for flags in ("01", "00"))


@dataclass
class Details(grpc.HandlerCallDetails):
    method: str
    invocation_metadata: tuple[tuple[str, str], ...]


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Trace; what is made goes nowhere. Set `OTEL_TRACES_SAMPLER` and call `begin`."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    yield monkeypatch
    if tracing.tracer is not None:
        tracing.tracer.close(within_s=10)


def begun(traceparent: str = "", method: str = "/prediction.v1.S/M") -> CallRecord:
    """Return the record of a call that begins now."""
    return CallRecord.of(Details(method, (("traceparent", traceparent),) if traceparent else ()))


def start(patch: pytest.MonkeyPatch, sampler: str) -> None:
    patch.setenv("OTEL_TRACES_SAMPLER", sampler)
    patch.setattr(tracing, "tracer", Tracer("despacho-test", instance="here"))


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_SERVICE_NAME": "labels", "OTEL_TRACES_SAMPLER": "always_on"}, False),
    ],
)
def test_spans_are_made_where_the_environment_says_where_they_go(
    environment: dict[str, str], *, wanted: bool
) -> None:
    assert is_wanted(environment) is wanted


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, ["otlp_proto_grpc"]),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ["otlp_proto_grpc", "console"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ["otlp_proto_http"]),
    ],
)
def test_exporters_are_those_that_packages_announce(
    environment: dict[str, str], names: list[str]
) -> None:
    assert exporter_names(environment) == names


def test_a_protocol_that_nobody_knows_is_refused() -> None:
    with pytest.raises(CannotTrace, match="carrier-pigeon"):
        exporter_names({"OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon"})


def test_an_exporter_that_refuses_its_settings_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "by hand")
    with pytest.raises(CannotTrace, match="by hand"):
        Tracer("despacho-test", instance="here")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "256", "max_queue_size"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "schedule_delay_millis"),
        ("OTEL_TRACES_SAMPLER", "allways_on", "parentbased_traceidratio"),
    ],
)
def test_variables_that_the_sdk_refuses_are_told_of(
    sampler: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    sampler.setenv(name, value)
    with pytest.raises(CannotTrace, match=told), tracing.recorded("server", instance="here"):
        pass


def test_samplers_are_those_of_the_sdk() -> None:
    assert {*SAMPLERS} == sampling._KNOWN_SAMPLERS.keys()


@pytest.mark.parametrize("name", ["", "always_on", "ParentBased_TraceIdRatio"])
def test_a_sampler_may_be_any_of_those_or_left_out(name: str) -> None:
    check_sampler({"OTEL_TRACES_SAMPLER": name})


def test_without_a_tracer_the_callers_trace_is_passed_on_as_it_is() -> None:
    record = begun(SAMPLED)
    assert (record.traceparent, record.echoed_traceparent) == (SAMPLED, SAMPLED)
    assert record.span is None


def test_a_sampled_call_passes_on_its_own_span(sampler: pytest.MonkeyPatch) -> None:
    start(sampler, "parentbased_always_on")
    record = begun(SAMPLED)
    assert record.span is not None
    assert record.trace_id == TRACE_ID
    assert record.traceparent not in ("", SAMPLED)
    assert is_sampled(record.traceparent)
    assert dict(record.trailers)["traceparent"] == SAMPLED


def test_the_callers_decision_goes_along(sampler: pytest.MonkeyPatch) -> None:
    start(sampler, "parentbased_always_on")
    record = begun(UNSAMPLED)
    assert record.span is None
    assert record.trace_id == TRACE_ID
    assert not is_sampled(record.traceparent)
    assert dict(record.trailers)["traceparent"] == UNSAMPLED


def test_we_may_record_although_the_caller_does_not(sampler: pytest.MonkeyPatch) -> None:
    start(sampler, "always_on")
    record = begun(UNSAMPLED)
    assert record.span is not None
    assert is_sampled(record.traceparent)


def test_our_own_decision_goes_along_although_the_caller_wanted_otherwise(
    sampler: pytest.MonkeyPatch,
) -> None:
    start(sampler, "always_off")
    record = begun(SAMPLED)
    assert record.span is None
    assert record.trace_id == TRACE_ID
    assert not is_sampled(record.traceparent)


def test_a_trace_that_nobody_records_is_not_made_up(sampler: pytest.MonkeyPatch) -> None:
    start(sampler, "always_off")
    record = begun()
    assert (record.traceparent, record.trace_id) == ("", "")
    assert "traceparent" not in dict(record.trailers)


def test_probes_are_not_traced(sampler: pytest.MonkeyPatch) -> None:
    start(sampler, "always_on")
    assert begun(SAMPLED, "/grpc.health.v1.Health/Check").span is None


def service_name() -> object:
    with tracing.recorded("server", instance="here"):
        assert tracing.tracer is not None
        return tracing.tracer.resource["service.name"]


def test_the_environment_may_name_the_service(sampler: pytest.MonkeyPatch) -> None:
    assert service_name() == "despacho-server"
    sampler.setenv("OTEL_SERVICE_NAME", "labels")
    assert service_name() == "labels"
    assert tracing.tracer is None


def test_no_context_is_of_no_trace() -> None:
    assert trace_id_of("") == ""
    assert not is_sampled("")


def test_the_client_tells_the_current_span_and_nothing_else() -> None:
    assert trace_context.current() == ""
    with TracerProvider().get_tracer("x").start_as_current_span("work") as span:
        context = span.get_span_context()
        told = trace_context.current()
    assert told.startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")
    assert is_sampled(told)
    with trace.use_span(trace.INVALID_SPAN):
        assert trace_context.current() == ""
