"""The page of metrics, and where it is served."""

import re
import socket
import tempfile
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from pydantic import TypeAdapter, ValidationError
from structlog.testing import capture_logs

from telemetry import metrics
from telemetry.addresses import OptionalHostPort

ADDRESS = TypeAdapter(OptionalHostPort)


def page_of(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - our own
        return str(response.read().decode())


def test_counters_are_served_while_inside() -> None:
    metrics.count_avoided("page", "queue", "expired", 2)
    with capture_logs() as lines, metrics.served("127.0.0.1:0"):
        (url,) = (line["url"] for line in lines)
        page = page_of(url)
    assert 'despacho_work_avoided_total{cause="expired",model="page",stage="queue"} 2.0\n' in page
    with pytest.raises(OSError, match="refused"):
        page_of(url)


def test_there_is_nothing_on_the_page_that_only_says_when_counting_began() -> None:
    with capture_logs() as lines, metrics.served("127.0.0.1:0"):
        assert "_created" not in page_of(lines[0]["url"])


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


@pytest.mark.parametrize("address", ["", "127.0.0.1:0", "0.0.0.0:9100", "[::1]:9100"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    assert ADDRESS.validate_python(address) == address


@pytest.mark.parametrize("address", ["9100", ":9100", "localhost", "localhost:http", "[::1]:65536"])
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
