"""The page of metrics, and where it is served."""

import re
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import TypeAdapter, ValidationError
from structlog.testing import capture_logs

from telemetry import metrics, metrics_server
from telemetry.addresses import OptionalHostPort

ADDRESS = TypeAdapter(OptionalHostPort)


def page_of(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - our own
        return str(response.read().decode())


def test_counters_are_served_while_inside() -> None:
    metrics.count_avoided("page", "queue", "expired")
    with capture_logs() as lines, metrics.served("127.0.0.1:0"):
        (url,) = (line["url"] for line in lines)
        page = page_of(url)
    assert 'despacho_work_avoided_total{cause="expired",model="page",stage="queue"} 1.0\n' in page
    with pytest.raises(OSError, match="refused"):
        page_of(url)


def test_there_is_nothing_on_the_page_that_only_says_when_counting_began() -> None:
    with capture_logs() as lines, metrics.served("127.0.0.1:0"):
        assert "_created" not in page_of(lines[0]["url"])


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a page whose server has no patience."""
    monkeypatch.setattr(metrics_server._Handler, "timeout", 0.2)
    with capture_logs() as lines, metrics.served("127.0.0.1:0"):
        yield int(re.findall(r":(\d+)/", lines[0]["url"])[0])
        assert len(lines) == 1  # of callers who say nothing there is nothing to say


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


@pytest.mark.parametrize("said", [b"", b"GET /metrics HT", b"GET /metrics HTTP/1.1\r\nHost:"])
def test_who_says_nothing_is_cut_off(
    port: int, said: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with connected(port) as caller:
        caller.sendall(said)
        assert caller.recv(1) == b""
    assert page_of(f"http://127.0.0.1:{port}/metrics")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("said", [b"", b"GET /metrics HT", b"GET /metrics HTTP/1.1\r\nHost:"])
def test_whoever_keeps_connections_keeps_nobody_else_away(
    port: int, said: bytes, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metrics_server._Handler, "timeout", 60)
    with ExitStack() as stack:
        callers = [stack.enter_context(connected(port)) for _ in range(metrics_server.MOST)]
        for caller in callers:
            caller.sendall(said)
        assert page_of(f"http://127.0.0.1:{port}/metrics")
        assert callers[0].recv(1) == b""
        callers[1].settimeout(0)
        with pytest.raises(BlockingIOError):
            callers[1].recv(1)
    assert capfd.readouterr().err == ""


class LongCollector(Collector):
    """More figures than fit into the buffers of a connection."""

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("long", "much to say " * 2_000_000, 1)


def test_who_takes_nothing_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metrics_server._Handler, "timeout", 0.2)
    registry = CollectorRegistry()
    registry.register(LongCollector())
    with metrics_server.listening("127.0.0.1", 0, registry) as port:
        before = set(threading.enumerate())
        with connected(port) as caller:
            caller.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert caller.recv(1)
            until(lambda: set(threading.enumerate()) <= before)
    assert capfd.readouterr().err == ""


class SlowCollector(Collector):
    """Figures that are not to be had until somebody says so."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def collect(self) -> Iterator[Metric]:
        assert self.go_on.wait(10)
        yield GaugeMetricFamily("slow", "", 1)


def test_no_more_pages_are_made_at_a_time_than_can_be_borne() -> None:
    slow, registry = SlowCollector(), CollectorRegistry()
    registry.register(slow)
    with ExitStack() as stack:
        port = stack.enter_context(metrics_server.listening("127.0.0.1", 0, registry))
        stack.callback(slow.go_on.set)
        for _ in range(metrics_server.MOST_THREADS):
            stack.enter_context(connected(port)).sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        with connected(port) as one_more:
            assert one_more.recv(1) == b""
        slow.go_on.set()
        until(lambda: is_served(port))


def is_served(port: int) -> bool:
    try:
        return bool(page_of(f"http://127.0.0.1:{port}/metrics"))
    except OSError:
        return False


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit


def test_without_an_address_nothing_is_served() -> None:
    with capture_logs() as lines, metrics.served(""):
        assert lines == []


def test_an_address_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        expected = re.escape(f"cannot serve metrics at {address}: ")
        with pytest.raises(metrics.CannotServeMetrics, match=expected), metrics.served(address):
            pass


@pytest.mark.parametrize("address", ["127.0.0.1:65536", "no.such.host.invalid:9100"])
def test_an_address_that_cannot_be_is_refused(address: str) -> None:
    with pytest.raises(metrics.CannotServeMetrics), metrics.served(address):
        pass


def test_without_a_place_for_the_figures_of_several_processes_there_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with (
        pytest.raises(metrics.CannotServeMetrics, match="no folder for the figures"),
        metrics.served_for({}, "127.0.0.1:0"),
    ):
        pass


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:0", "0.0.0.0:9100", "[::1]:9100", "bücher.example.:9100"]
)
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    assert ADDRESS.validate_python(address) == address


@pytest.mark.parametrize(
    "address",
    ["9100", ":9100", "localhost", "localhost:http", "[::1]:65536", "no..host:9100", ".host:9100"],
)
def test_anything_else_is_no_address(address: str) -> None:
    with pytest.raises(ValidationError):
        ADDRESS.validate_python(address)


def test_series_are_there_before_they_count() -> None:
    metrics.begin_at_zero("zero", ("decode",), infers=True)
    series = {
        (sample.name, *sorted(sample.labels.values()))
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.labels.get("model") == "zero" and sample.value == 0
    }
    assert series == {
        ("despacho_work_avoided_total", "decode", "expired", "zero"),
        ("despacho_work_avoided_total", "cancelled", "decode", "zero"),
        ("despacho_work_wasted_total", "too_late", "zero"),
        ("despacho_work_wasted_total", "orphaned", "zero"),
    }
