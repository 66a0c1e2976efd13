"""Traces while parts are lost, silent or missing."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.address import free_port
from tests.processes import ROOT
from tests.redis_server import RedisServer
from tests.stack import Stack, request_for
from tests.trace_collector import collecting
from tests.traced_system import (
    CALL,
    IMAGE,
    LIMIT_S,
    LONG_S,
    WORK,
    line_with,
    new_trace,
    trace_to,
)
from tests.worker_process import MODEL


@pytest.fixture
def silent_url() -> Iterator[str]:
    """Where somebody accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_a_job_that_lost_its_worker_shows_both_attempts(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        trace_to(monkeypatch, collector.url)
        stack.start_server()
        lost = stack.start_worker(inference_ms=LONG_S * 1000)
        await stack.until_ready()
        trace_id, metadata = new_trace()
        stub = stack.stub()
        call = stub.Predict(
            request_for((3, 3, 3), request_id="retried"), metadata=metadata, timeout=40
        )
        # Not before the first attempt has been told of: a killed process tells nothing.
        await stack.until(lambda: len(collector.of(trace_id)) == 2, LIMIT_S)
        lost.kill()
        other = stack.start_worker(log_format="json")
        response = await call
        assert response.timing.attempt == 2
        spans = collector.wait_for(
            trace_id, CALL, IMAGE, "queue wait", "decode", *WORK, limit_s=LIMIT_S
        )
        line = line_with(other, "job taken over", "retried")
    [image] = [span for span in spans if span.name == IMAGE]
    work = [span for span in spans if span.service == "despacho-worker"]
    assert {span.parent_id for span in work} == {image.span_id}
    attempts = {(span.name, span.attributes["despacho.attempt"]) for span in work}
    assert attempts == {("queue wait", 1), ("decode", 1), *((name, 2) for name in WORK)}
    assert len({span.instance for span in work}) == 2
    assert image.attributes["despacho.attempt"] == 2
    assert (line["trace_id"], line["attempt"], line["model"]) == (trace_id, 2, MODEL)
    assert line["worker"] == response.worker


async def test_a_trace_that_is_not_chosen_is_sent_nowhere_and_the_rest_before_the_end(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        # Nothing is sent but at the end.
        trace_to(monkeypatch, collector.url, delay_ms=LONG_S * 1000)
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
