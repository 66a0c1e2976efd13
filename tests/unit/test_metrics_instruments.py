"""Instruments count, and become a page."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from telemetry.metrics_catalogue import INSTRUMENTS
from telemetry.metrics_instruments import Counter, Gauge, Histogram, Instrument
from telemetry.metrics_page import Page


def page_of(*instruments: Instrument) -> list[str]:
    registry = CollectorRegistry()
    registry.register(Page(instruments))
    return generate_latest(registry).decode().splitlines()


def test_a_counter_counts_by_its_labels() -> None:
    counter = Counter("seen_total", "What was seen.", ("colour",))
    counter.add("red")
    counter.add("red", count=2)
    counter.begin("blue")
    assert page_of(counter) == [
        "# HELP seen_total What was seen.",
        "# TYPE seen_total counter",
        'seen_total{colour="blue"} 0.0',
        'seen_total{colour="red"} 3.0',
    ]


def test_a_histogram_has_what_is_at_an_edge_below_it() -> None:
    histogram = Histogram("wait_seconds", "How long.", edges=(0.5, 1))
    for value in (0.25, 0.5, 0.75, 3):
        histogram.observe(value)
    assert page_of(histogram)[2:] == [
        'wait_seconds_bucket{le="0.5"} 2.0',
        'wait_seconds_bucket{le="1.0"} 3.0',
        'wait_seconds_bucket{le="+Inf"} 4.0',
        "wait_seconds_count 4.0",
        "wait_seconds_sum 4.5",
    ]


def test_a_gauge_is_read_when_the_page_is_made() -> None:
    gauge = Gauge("jobs", "How many.", ("queue",))
    jobs = [1]
    with gauge.reading(lambda: [(("high",), (len(jobs),))]):
        jobs += [2, 3]
        assert page_of(gauge)[2:] == ['jobs{queue="high"} 3.0']
    assert page_of(gauge) == []


def test_sources_with_the_same_labels_are_one() -> None:
    counter = Counter("seen_total", "What was seen.")
    counter.add()
    counter.add_source(lambda: [((), (4,))])
    assert counter.read() == {(): (5,)}


def test_what_has_nothing_to_say_is_not_on_the_page() -> None:
    assert page_of(Counter("seen_total", "What was seen.")) == []


def test_labels_that_are_missing_are_a_bug_that_stops_loudly() -> None:
    with pytest.raises(ValueError, match="seen_total has the labels"):
        Counter("seen_total", "What was seen.", ("colour",)).add()


def test_names_say_what_they_are() -> None:
    names = [instrument.name for instrument in INSTRUMENTS]
    assert len(names) == len(set(names))
    for instrument in INSTRUMENTS:
        assert instrument.name.endswith("_total") == (instrument.kind == "counter")
        assert instrument.name.startswith(("despacho_", "grpc_server_"))
        assert instrument.about.endswith(".")


def test_edges_rise() -> None:
    for instrument in INSTRUMENTS:
        if isinstance(instrument, Histogram):
            assert list(instrument.edges) == sorted(set(instrument.edges))
