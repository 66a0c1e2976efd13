"""Loads: the same for the system and for its limits, each with its check that all was answered."""

import json
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from tests.bench.figures import percentile
from tests.bench.h2load import CONNECTIONS, LIMIT_S, PREDICT, Load, LoadFailed, Target, drive
from tests.bench.results import Run
from tests.bench.usage import Meter
from tests.processes import ROOT

LEAST_ANSWER_BYTES: Final = 60
"""Of a response with gRPC's five bytes: less is no answer. A refusal has no body at all."""

WARM_UP_CALLS: Final = 8
"""For each call in flight: enough to know about how fast it is."""

LEAST_WARM_UP: Final = 50

Totals = Callable[[], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Side:
    """Somebody who can be asked."""

    name: str
    address: str
    pids: Mapping[str, Sequence[int]]
    """Its processes, by the name that they go by."""

    totals: Totals | None = None
    """Outcomes that it has counted; None: it counts none."""


class Driven(Protocol):
    """A load on one side."""

    def run(self, number: int, seconds: float) -> Run:
        """Make the load for about so long; return what came of it."""

    def warm_up(self) -> None:
        """Make a little of it."""


@dataclass(slots=True)
class Paced(ABC):
    """As much as takes about so long, which the run before has shown."""

    side: Side
    label: str
    _rate: float = field(default=0.0, init=False)

    @property
    @abstractmethod
    def in_flight(self) -> int:
        """How many images are under way at a time."""

    @abstractmethod
    def _driven(self, requests: int) -> Load:
        """Ask so often."""

    def warm_up(self) -> None:
        """Ask a few times, and see how fast that is."""
        self._measured(max(WARM_UP_CALLS * self.in_flight, LEAST_WARM_UP), 0)

    def run(self, number: int, seconds: float) -> Run:
        """Ask for about so long."""
        if not self._rate:
            self.warm_up()
        return self._measured(max(round(self._rate * seconds), self.in_flight), number)

    def _measured(self, requests: int, number: int) -> Run:
        with checked(self.side, requests), Meter(self.side.pids) as meter:
            load = self._driven(requests)
        if load.data_bytes is not None and load.data_bytes < LEAST_ANSWER_BYTES * load.requests:
            raise LoadFailed(f"{load.data_bytes} bytes are no {load.requests} answers")
        run = to_run(
            load,
            meter,
            label=self.label,
            side=self.side.name,
            number=number,
            concurrency=self.in_flight,
        )
        self._rate = run.rate
        return run


@dataclass(slots=True)
class Unary(Paced):
    """Unary calls by h2load."""

    body: Path
    concurrency: int
    connections: int = CONNECTIONS
    target: Target = PREDICT

    @property
    def in_flight(self) -> int:
        """How many calls are under way at a time."""
        return self.concurrency

    def _driven(self, requests: int) -> Load:
        return drive(
            self.side.address,
            self.body,
            requests=requests,
            concurrency=self.concurrency,
            connections=self.connections,
            target=self.target,
        )


@dataclass(slots=True)
class Shared(Unary):
    """Unary calls by several h2load at once, an address for each."""

    addresses: Sequence[str] = ()

    def _driven(self, requests: int) -> Load:
        count = len(self.addresses)

        def share(index: int) -> Load:
            # h2load's log lies beside the body.
            body = self.body.with_name(f"{self.body.name}-{index}")
            shutil.copyfile(self.body, body)
            return drive(
                self.addresses[index],
                body,
                requests=requests // count,
                concurrency=max(1, self.concurrency // count),
                connections=max(1, self.connections // count),
            )

        with ThreadPoolExecutor(count) as threads:
            shares = list(threads.map(share, range(count)))
        made = sum(each.requests for each in shares)
        # Each ends with its own last call, so each has a rate of its own.
        rate = sum(each.requests / each.seconds for each in shares)
        latencies = sorted(latency for each in shares for latency in each.latencies_ms)
        data_bytes = sum(each.data_bytes or 0 for each in shares)
        return Load(made, made / rate, latencies, data_bytes)


@dataclass(slots=True)
class Stream(Paced):
    """One bidirectional stream, by a driver in Python."""

    size: int
    """Of each payload, bytes."""

    window: int

    @property
    def in_flight(self) -> int:
        """How many images are under way at a time."""
        return self.window

    def _driven(self, requests: int) -> Load:
        arguments = [self.side.address, str(requests), str(self.window), str(self.size)]
        finished = subprocess.run(
            [sys.executable, "-m", "tests.bench.stream_driver", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        if finished.returncode:
            raise LoadFailed(finished.stderr)
        found = json.loads(finished.stdout)
        return Load(requests, found["seconds"], found["latencies_ms"], data_bytes=None)


class checked:  # noqa: N801 - read as a word of the `with` statement
    """Inside, a side completes so many jobs and nothing else.

    Raises:
        LoadFailed: it did not, whatever the caller of the load has seen.
    """

    def __init__(self, side: Side, requests: int) -> None:
        self._totals = side.totals
        self._requests = requests
        self._before: dict[str, int] = {}

    def __enter__(self) -> None:
        if self._totals is not None:
            self._before = dict(self._totals())

    def __exit__(self, exc_type: object, exc: object, traceback: object) -> None:
        if self._totals is None or exc is not None:
            return
        new = {name: n - self._before.get(name, 0) for name, n in self._totals().items()}
        counted = {name: n for name, n in new.items() if n}
        if counted != {"accepted": self._requests, "completed": self._requests}:
            raise LoadFailed(f"{self._requests} calls were made; counted: {counted}")


def to_run(
    load: Load, meter: Meter, *, label: str, side: str, number: int, concurrency: int
) -> Run:
    """Put together what a load and the meter around it say."""
    return Run(
        label=label,
        side=side,
        number=number,
        concurrency=concurrency,
        requests=load.requests,
        seconds=round(load.seconds, 4),
        p50_ms=round(percentile(load.latencies_ms, 0.5), 3),
        p99_ms=round(percentile(load.latencies_ms, 0.99), 3),
        p999_ms=round(percentile(load.latencies_ms, 0.999), 3),
        cpu_ms={name: round(used / load.requests * 1000, 4) for name, used in meter.cpu_s.items()},
        rss_mb={name: round(used, 1) for name, used in meter.rss_mb().items()},
        disturbance=meter.disturbance,
    )
