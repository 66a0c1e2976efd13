"""One trace from the caller to the model, through real processes, to a real collector."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider

from client import AsyncClient
from prediction.v1 import prediction_pb2 as pb
from tests.processes import ROOT, Process
from tests.redis_server import RedisServer, free_port
from tests.stack import Stack, image_of, request_for
from tests.trace_collector import Collector, Seen, collecting
from tests.worker_process import MODEL, RAISE

CALL = "prediction.v1.PredictionService/Predict"
STREAM = "prediction.v1.PredictionService/PredictStream"
SUBMIT = "prediction.v1.PredictionService/SubmitPrediction"
IMAGE = f"predict {MODEL}"
WORK = ("queue wait", "decode", "inference")
MILLISECOND_NS = 1_000_000
LIMIT_S = 20
LONG_AGO_S = 3600


class System(Stack):
    """A front-end and a worker that send their spans to a collector."""

    def __init__(self, redis: RedisServer, folder: Path, collector: Collector) -> None:
        super().__init__(redis, folder)
        self.collector = collector
        self.server = self.start_server(log_format="json")
        self.worker = self.start_worker(log_format="json", log_level="DEBUG")


@pytest.fixture(scope="module")
def system(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One for all tests that end nothing in it."""
    with shared_redis.client() as client:
        client.flushall()
    with collecting() as collector, pytest.MonkeyPatch.context() as patch:
        trace_to(patch, collector.url)
        system = System(shared_redis, tmp_path_factory.mktemp("traces"), collector)
        try:
            yield system
        finally:
            for process in (system.server, system.worker):
                process.clean_up()


@pytest.fixture
async def stack(own_redis: RedisServer, tmp_path: Path) -> Any:
    stack = Stack(own_redis, tmp_path)
    yield stack
    await stack.close()


def trace_to(patch: pytest.MonkeyPatch, url: str, *, delay_ms: int = 20) -> None:
    """Let processes that start now send their spans there."""
    patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    patch.setenv("OTEL_BSP_SCHEDULE_DELAY", str(delay_ms))


def new_trace(*, is_sampled: bool = True) -> tuple[str, tuple[tuple[str, str]]]:
    """Return the id of a new trace, and the metadata of a call in it."""
    trace_id = os.urandom(16).hex()
    return trace_id, (("traceparent", f"00-{trace_id}-{'7a' * 8}-{is_sampled:02x}"),)


def by_name(spans: list[Seen]) -> dict[str, Seen]:
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def line_with(process: Process, event: str, request_id: str) -> dict[str, Any]:
    """Return the line of a log of JSON about a request."""
    text = process.wait_for_line(
        rf'(?m)^(?=.*"event": "{event}")(?=.*"request_id": "{request_id}").*$'
    ).group(0)
    found: dict[str, Any] = json.loads(text)
    return found


async def test_one_trace_leads_from_the_caller_to_the_model(system: System) -> None:
    await system.until_ready()
    tracer = TracerProvider().get_tracer("the caller's code")
    with tracer.start_as_current_span("caller") as caller:
        async with AsyncClient(system.address) as client:
            result = await client.predict(image_of((10, 20, 30)), timeout_s=LIMIT_S)
    trace_id = f"{caller.get_span_context().trace_id:032x}"
    spans = system.collector.wait_for(trace_id, CALL, IMAGE, *WORK)
    named = by_name(spans)
    call, image = named[CALL], named[IMAGE]

    assert call.parent_id == f"{caller.get_span_context().span_id:016x}"
    assert image.parent_id == call.span_id
    assert {named[name].parent_id for name in WORK} == {image.span_id}
    assert (call.service, image.service) == ("despacho-server", "despacho-server")
    assert {named[name].service for name in WORK} == {"despacho-worker"}
    assert {named[name].instance for name in WORK} == {result.worker}
    kinds = ("server", "producer", "consumer", "internal", "internal")
    assert tuple(named[name].kind for name in (CALL, IMAGE, *WORK)) == kinds
    assert not any(span.is_error for span in spans)

    assert all(span.began_ns <= span.ended_ns for span in spans)
    assert call.began_ns <= image.began_ns <= image.ended_ns <= call.ended_ns
    # Redis, whose clock says when the wait began, tells milliseconds.
    began = [named[name].began_ns for name in WORK]
    ended = [named[name].ended_ns for name in WORK]
    assert image.began_ns - 2 * MILLISECOND_NS <= began[0]
    assert ended[0] <= ended[1] <= ended[2] <= image.ended_ns
    assert began[0] <= began[1] <= began[2]

    assert call.attributes["rpc.system"] == "grpc"
    assert call.attributes["rpc.service"] == "prediction.v1.PredictionService"
    assert call.attributes["rpc.method"] == "Predict"
    assert call.attributes["rpc.grpc.status_code"] == 0
    assert call.attributes["client.address"] == "127.0.0.1"
    job_ids = {named[name].attributes["messaging.message.id"] for name in (IMAGE, "queue wait")}
    assert len(job_ids) == 1
    assert image.attributes["despacho.worker"] == result.worker
    assert named["inference"].attributes["despacho.batch_size"] == 1
    assert {named[name].attributes["despacho.attempt"] for name in WORK} == {1}


async def test_the_lines_of_both_logs_have_the_same_ids(system: System) -> None:
    await system.until_ready()
    trace_id, metadata = new_trace()
    request = request_for((1, 2, 3), request_id="log-1")
    response = await system.stub().Predict(request, metadata=metadata, timeout=LIMIT_S)
    call = line_with(system.server, "call", "log-1")
    job = line_with(system.worker, "job", "log-1")
    assert call["trace_id"] == job["trace_id"] == trace_id
    assert call["worker"] == job["worker"] == response.worker
    assert call["model"] == job["model"] == MODEL
    assert (job["level"], job["outcome"], job["reason"]) == ("debug", "completed", "")
    for field in ("queue_ms", "decode_ms", "inference_ms", "batch_size", "attempt"):
        assert call[field] == job[field]
    assert call["inference_ms"] == response.timing.inference.ToMicroseconds() / 1000

    bad = pb.PredictRequest(image=b"no image", request_id="log-2")
    with pytest.raises(grpc.aio.AioRpcError):
        await system.stub().Predict(bad, metadata=metadata, timeout=LIMIT_S)
    call = line_with(system.server, "call", "log-2")
    job = line_with(system.worker, "job", "log-2")
    assert call["worker"] == response.worker
    assert call["reason"] == job["reason"] == "IMAGE_FORMAT_UNSUPPORTED"
    assert job["outcome"] == "failed"


async def test_each_image_of_a_stream_has_a_span_and_a_bad_one_fails_alone(
    system: System,
) -> None:
    await system.until_ready()
    trace_id, metadata = new_trace()
    bad = pb.PredictRequest(image=b"no image", request_id="bad")
    raising = request_for(RAISE, request_id="raising")
    items = [
        pb.PredictStreamRequest(request=request)
        for request in (request_for((5, 5, 5), request_id="good"), bad, raising)
    ]
    stream: Any = system.stub().PredictStream(iter(items), metadata=metadata, timeout=LIMIT_S)
    assert len([response async for response in stream]) == 3

    def is_complete(spans: list[Seen]) -> bool:
        # What was inferred together is inferred again, one by one, when one of them raises.
        return STREAM in {span.name for span in spans} and len(images_of(spans)) == 3

    def images_of(spans: list[Seen]) -> dict[str, Seen]:
        images = [span for span in spans if span.name == IMAGE]
        return {span.attributes["despacho.request_id"]: span for span in images}

    spans = system.collector.wait(trace_id, is_complete)
    [call] = [span for span in spans if span.name == STREAM]
    images = images_of(spans)
    assert not call.is_error
    assert (call.attributes["despacho.images"], call.attributes["despacho.failed_images"]) == (1, 2)
    assert {span.parent_id for span in images.values()} == {call.span_id}
    reasons = {name: span.attributes.get("error.type") for name, span in images.items()}
    assert reasons == {
        "good": None,
        "bad": "IMAGE_FORMAT_UNSUPPORTED",
        "raising": "INFERENCE_FAILED",
    }

    def work_of(name: str, parent: str) -> list[Seen]:
        parent_id = images[parent].span_id
        spans = system.collector.of(trace_id)
        return [span for span in spans if span.parent_id == parent_id and span.name == name]

    system.collector.wait(trace_id, lambda _: bool(work_of("inference", "raising")))
    system.collector.wait(trace_id, lambda _: bool(work_of("decode", "bad")))
    assert work_of("decode", "bad")[0].is_error
    assert not work_of("inference", "bad")
    assert work_of("inference", "raising")[-1].attributes["error.type"] == "INFERENCE_FAILED"


async def test_an_operation_is_one_trace_though_nobody_waits(system: System) -> None:
    await system.until_ready()
    trace_id, metadata = new_trace()
    request = pb.SubmitPredictionRequest(image=image_of((9, 9, 9)))
    await system.stub().SubmitPrediction(request, metadata=metadata, timeout=LIMIT_S)
    spans = system.collector.wait_for(trace_id, SUBMIT, f"submit {MODEL}", *WORK)
    named = by_name(spans)
    submission = named[f"submit {MODEL}"]
    assert submission.parent_id == named[SUBMIT].span_id
    assert {named[name].parent_id for name in WORK} == {submission.span_id}
    assert named["queue wait"].attributes["messaging.destination.name"].endswith(":operation")


async def test_a_caller_without_a_trace_is_told_that_of_its_call(system: System) -> None:
    await system.until_ready()
    call: Any = system.stub().Predict(request_for((7, 7, 7)), timeout=LIMIT_S)
    await call
    told = dict(await call.trailing_metadata())["traceparent"]
    _, trace_id, span_id, _ = told.split("-")
    root = by_name(system.collector.wait_for(trace_id, CALL, IMAGE, *WORK))[CALL]
    assert (root.span_id, root.parent_id) == (span_id, "")


async def test_refusals_and_methods_that_do_not_exist_are_errors(system: System) -> None:
    await system.until_ready()
    trace_id, metadata = new_trace()
    unknown: Any = system.channel().unary_unary("/made.up/Method")
    with pytest.raises(grpc.aio.AioRpcError):
        await unknown(b"", metadata=metadata, timeout=LIMIT_S)
    [span] = system.collector.wait_for(trace_id, "_OTHER")
    assert span.is_error
    assert span.attributes["rpc.grpc.status_code"] == grpc.StatusCode.UNIMPLEMENTED.value[0]

    trace_id, metadata = new_trace()
    with pytest.raises(grpc.aio.AioRpcError):
        await system.stub().Predict(pb.PredictRequest(), metadata=metadata, timeout=LIMIT_S)
    [span] = system.collector.wait_for(trace_id, CALL)
    # The caller's fault is none of the server.
    assert not span.is_error
    assert span.attributes["error.type"] == "IMAGE_EMPTY"


async def test_a_job_that_lost_its_worker_shows_both_attempts(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        trace_to(monkeypatch, collector.url)
        stack.start_server()
        lost = stack.start_worker(inference_ms=LONG_AGO_S * 1000)
        await stack.until_ready()
        trace_id, metadata = new_trace()
        stub = stack.stub()
        call = stub.Predict(request_for((3, 3, 3)), metadata=metadata, timeout=40)
        # Not before the first attempt has been told of: a killed process tells nothing.
        await stack.until(lambda: len(collector.of(trace_id)) == 2, LIMIT_S)
        lost.kill()
        other = stack.start_worker()
        response = await call
        assert response.timing.attempt == 2
        spans = collector.wait_for(
            trace_id, CALL, IMAGE, "queue wait", "decode", *WORK, limit_s=LIMIT_S
        )
        other.wait_for_line("job taken over.*attempt.*2")
    [image] = [span for span in spans if span.name == IMAGE]
    work = [span for span in spans if span.service == "despacho-worker"]
    assert {span.parent_id for span in work} == {image.span_id}
    attempts = {(span.name, span.attributes["despacho.attempt"]) for span in work}
    assert attempts == {("queue wait", 1), ("decode", 1), *((name, 2) for name in WORK)}
    assert len({span.instance for span in work}) == 2
    assert image.attributes["despacho.attempt"] == 2


async def test_a_trace_that_is_not_chosen_is_sent_nowhere_and_the_rest_before_the_end(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        # Nothing is sent but at the end.
        trace_to(monkeypatch, collector.url, delay_ms=LONG_AGO_S * 1000)
        processes = (stack.start_server(), stack.start_worker())
        await stack.until_ready()
        stub = stack.stub()
        unsampled_id, unsampled = new_trace(is_sampled=False)
        call: Any = stub.Predict(request_for((4, 4, 4)), metadata=unsampled, timeout=LIMIT_S)
        await call
        assert dict(await call.trailing_metadata())["traceparent"] == unsampled[0][1]
        sampled_id, sampled = new_trace()
        await stub.Predict(request_for((4, 4, 4)), metadata=sampled, timeout=LIMIT_S)
        assert collector.spans == []
        for process in processes:
            process.send(signal.SIGTERM)
        assert [process.wait() for process in processes] == [0, 0]
        assert {span.name for span in collector.of(sampled_id)} == {CALL, IMAGE, *WORK}
        assert collector.of(unsampled_id) == []


async def test_a_collector_that_is_away_or_silent_costs_no_call(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, silent_url: str
) -> None:
    # So few that what waits is thrown away during the test.
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    trace_to(monkeypatch, f"http://127.0.0.1:{free_port()}")
    server = stack.start_server()
    trace_to(monkeypatch, silent_url)
    worker = stack.start_worker()
    await stack.until_ready()
    stub = stack.stub()
    for _ in range(20):
        await stub.Predict(request_for((2, 2, 2)), timeout=LIMIT_S)
    for process in (server, worker):
        process.wait_for_line("Queue full, dropping Span")
        process.send(signal.SIGTERM)
    assert [process.wait() for process in (server, worker)] == [0, 0]
    for process in (server, worker):
        assert "spans lost" in process.log
    stack.assert_nothing_is_left()


def test_a_front_end_that_cannot_send_its_spans_says_so_and_does_not_start(
    shared_redis: RedisServer,
) -> None:
    environment = {**os.environ, "REDIS_URL": shared_redis.url, "OTEL_TRACES_EXPORTER": "pigeon"}
    process = subprocess.run(
        [sys.executable, "-m", "server"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr.startswith("server: no installed package has the exporter 'pigeon'")


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None  # whoever imports it is told that it is not installed
import client, server.__main__, server.image_spans, worker.__main__, worker.app
from telemetry import tracing
with tracing.recorded("server", instance="x"):
    print(tracing.tracer)
"""


def run_without_opentelemetry(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    ours = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=ROOT,
        env={**ours, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_unless_somebody_asks_nothing_of_opentelemetry_is_imported() -> None:
    assert run_without_opentelemetry({}).stdout == "None\n"


def test_spans_without_the_packages_for_them_are_refused_with_what_to_install() -> None:
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}
    last_line = run_without_opentelemetry(asked).stderr.splitlines()[-1]
    assert "CannotTrace: tracing is configured, but opentelemetry is not installed" in last_line
    assert "requirements-tracing.txt" in last_line


@pytest.fixture
def silent_url() -> Iterator[str]:
    """Where somebody accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
