"""What Prometheus reads: the instruments as a library writes them down."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from telemetry.metrics_instruments import Histogram, Instrument, Readings

Read = Callable[[], Mapping[str, Readings]]
"""Returns the readings by the name of the instrument."""


class Page(Collector):
    """Instruments, without those that have nothing to say."""

    def __init__(self, instruments: Sequence[Instrument], read: Read | None = None) -> None:
        """Read nothing yet.

        Args:
            instruments: what to show.
            read: where the numbers come from; None: from the instruments.
        """
        self._instruments = instruments
        self._read = read or self._read_own

    def describe(self) -> Iterator[Metric]:
        """Say which names are taken, before there are numbers."""
        for instrument in self._instruments:
            yield _family(instrument)

    def collect(self) -> Iterator[Metric]:
        """Return the numbers as they are now."""
        readings = self._read()
        for instrument in self._instruments:
            if found := readings.get(instrument.name):
                yield _filled(instrument, found)

    def _read_own(self) -> dict[str, Readings]:
        return {each.name: each.read() for each in self._instruments}


def _family(
    instrument: Instrument,
) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    name, about, labels = instrument.name, instrument.about, instrument.labels
    if instrument.kind == "counter":
        return CounterMetricFamily(name, about, labels=labels)
    if instrument.kind == "gauge":
        return GaugeMetricFamily(name, about, labels=labels)
    return HistogramMetricFamily(name, about, labels=labels)


def _filled(instrument: Instrument, readings: Readings) -> Metric:
    family = _family(instrument)
    for labels, values in sorted(readings.items()):
        if isinstance(instrument, Histogram) and isinstance(family, HistogramMetricFamily):
            *counts, total = values
            edges = (*map(repr, map(float, instrument.edges)), "+Inf")
            buckets = list(zip(edges, accumulate(counts), strict=True))
            family.add_metric(labels, buckets=buckets, sum_value=total)
        elif not isinstance(family, HistogramMetricFamily):
            family.add_metric(labels, values[0])
    return family
