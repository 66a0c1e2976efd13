"""What counts, in plain numbers: the hot path only adds, and the page is made when it is read.

    Counter     only grows
    Histogram   how many values came into each bucket, and their sum
    Gauge       how it is now

A library's counter takes a microsecond for each of them, and more when processes share it.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

Labels: TypeAlias = tuple[str, ...]

Values: TypeAlias = Sequence[float]
"""Of a counter or a gauge: one number. Of a histogram: one for each bucket, and the sum."""

Readings: TypeAlias = dict[Labels, Values]

Source: TypeAlias = Callable[[], Iterable[tuple[Labels, Values]]]
"""Counts somewhere else; called in the thread that makes the page."""

Kind: TypeAlias = Literal["counter", "histogram", "gauge"]

OverProcesses: TypeAlias = Literal["sum", "max", "min"]
"""How the readings of several processes become one."""

_MERGE: Final[dict[OverProcesses, Callable[[float, float], float]]] = {
    "sum": float.__add__,
    "max": max,
    "min": min,
}


class Instrument:
    """One metric: its name, and the numbers by its labels."""

    kind: Kind

    def __init__(
        self,
        name: str,
        about: str,
        labels: Labels = (),
        *,
        over_processes: OverProcesses = "sum",
    ) -> None:
        """Have no numbers yet.

        Args:
            name: as Prometheus knows it, with its unit.
            about: what it says, one sentence.
            labels: names of the labels.
            over_processes: how those of several processes become one.
        """
        self.name = name
        self.about = about
        self.labels = labels
        self.over_processes = over_processes
        self._lock = threading.Lock()
        self._own: dict[Labels, list[float]] = {}
        self._sources: list[Source] = []

    def add_source(self, source: Source) -> None:
        """Show what is counted elsewhere, for good."""
        self._sources.append(source)

    @contextmanager
    def reading(self, source: Source) -> Iterator[None]:
        """Show what is counted elsewhere while inside."""
        self._sources.append(source)
        try:
            yield
        finally:
            self._sources.remove(source)

    def read(self) -> Readings:
        """Return the numbers as they are now."""
        with self._lock:
            found: Readings = {labels: tuple(values) for labels, values in self._own.items()}
        for source in tuple(self._sources):
            for labels, values in source():
                found[labels] = self.merged(found.get(labels), values)
        return found

    def merged(self, before: Values | None, values: Values) -> Values:
        """Return two readings of the same labels as one."""
        if before is None:
            return tuple(values)
        merge = _MERGE[self.over_processes]
        return tuple(merge(float(a), float(b)) for a, b in zip(before, values, strict=True))

    def _of(self, labels: Labels, size: int) -> list[float]:
        found = self._own.get(labels)
        if found is None:
            if len(labels) != len(self.labels):
                raise ValueError(f"{self.name} has the labels {self.labels}, not {labels}")
            found = self._own[labels] = [0.0] * size
        return found


class Counter(Instrument):
    """Only grows. For any thread."""

    kind = "counter"

    def add(self, *labels: str, count: float = 1) -> None:
        """Count."""
        with self._lock:
            self._of(labels, 1)[0] += count

    def begin(self, *labels: str) -> None:
        """Show a zero: a rate misses the first event of a series that appears with it."""
        self.add(*labels, count=0)


class Histogram(Instrument):
    """How often values came into each bucket. For any thread."""

    kind = "histogram"

    def __init__(
        self, name: str, about: str, labels: Labels = (), *, edges: Sequence[float]
    ) -> None:
        """Have no numbers yet.

        Args:
            name: as Prometheus knows it, with its unit.
            about: what it says, one sentence.
            labels: names of the labels.
            edges: upper edges of the buckets, rising; one more bucket has the rest.
        """
        super().__init__(name, about, labels)
        self.edges = tuple(edges)

    @property
    def size(self) -> int:
        """How many numbers a reading has."""
        return len(self.edges) + 2

    def observe(self, value: float, *labels: str) -> None:
        """Count a value."""
        bucket = bisect_left(self.edges, value)
        with self._lock:
            values = self._of(labels, self.size)
            values[bucket] += 1
            values[-1] += value

    def begin(self, *labels: str) -> None:
        """Show that there was nothing yet."""
        with self._lock:
            self._of(labels, self.size)


class Gauge(Instrument):
    """How it is now: read when the page is made, from its sources."""

    kind = "gauge"
