"""What a scenario measured: kept as JSON, from which all tables and plots are made."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from tests.bench.figures import Spread, spread

STEAL_LIMIT: Final = 0.05
"""Share of the processors' time that the host may take from a round before it counts as
disturbed."""

FOREIGN_LIMIT: Final = 0.10
"""The same for programs that are not of this benchmark. Higher, as the kernel's own threads, which
write the append-only file, are among them."""


class Kept(BaseModel):
    """Part of the results file; a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Disturbance(Kept):
    """How much of the processors' time went elsewhere during a run, as shares of all."""

    steal: float = 0.0
    """To other machines of the same host."""

    foreign: float = 0.0
    """To programs that are not part of the benchmark."""

    @property
    def is_too_much(self) -> bool:
        """Whether the run says little."""
        return self.steal > STEAL_LIMIT or self.foreign > FOREIGN_LIMIT

    def worse(self, other: "Disturbance") -> "Disturbance":
        """Return the greater of each."""
        return Disturbance(
            steal=max(self.steal, other.steal), foreign=max(self.foreign, other.foreign)
        )


class Run(Kept):
    """One load on one system."""

    label: str
    """What was asked, such as `10 KB`."""

    side: str
    """Who answered."""

    number: int
    """Of the round, from 0."""

    concurrency: int
    """Calls in flight."""

    requests: int
    """All of them were answered."""

    seconds: float

    p50_ms: float
    p99_ms: float
    p999_ms: float

    cpu_ms: dict[str, float] = {}
    """Processor time by process, milliseconds per request."""

    rss_mb: dict[str, float] = {}
    """Resident memory by process after the run, MiB."""

    disturbance: Disturbance = Disturbance()

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def undisturbed(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that count: per number of calls the undisturbed ones, if there are any."""
    calm = {run.concurrency for run in runs if not run.disturbance.is_too_much}
    return [run for run in runs if run.concurrency not in calm or not run.disturbance.is_too_much]


class Bound(StrEnum):
    """Which side of the target is good."""

    AT_LEAST = "≥"
    AT_MOST = "≤"


class Value(Kept):
    """What one round gave."""

    value: float
    disturbance: Disturbance = Disturbance()


def counted(values: Sequence[Value]) -> list[Value]:
    """Return what undisturbed rounds gave; all, if all were disturbed."""
    calm = [each for each in values if not each.disturbance.is_too_much]
    return calm or list(values)


class Line(Kept):
    """One thing that must hold."""

    what: str
    bound: Bound
    target: float
    unit: str
    """Stands behind the number."""

    values: list[Value]
    """One for each round."""

    @property
    def counted(self) -> list[Value]:
        """The rounds that count."""
        return counted(self.values)

    @property
    def is_disturbed(self) -> bool:
        """Whether no round was left in peace."""
        return all(each.disturbance.is_too_much for each in self.values)

    @property
    def seen(self) -> Spread:
        """The spread of the rounds that count."""
        return spread([each.value for each in self.counted])

    @property
    def is_reached(self) -> bool:
        """Whether the median is on the good side."""
        median = self.seen.median
        return median >= self.target if self.bound is Bound.AT_LEAST else median <= self.target


class Table(Kept):
    """Something else that was found."""

    title: str
    heads: list[str]
    rows: list[list[str]]


class Machine(Kept):
    """Where it was measured."""

    processor: str
    cores: int
    memory_gb: float
    system: str
    python: str
    packages: dict[str, str]
    redis: str


class Outcome(Kept):
    """All of one scenario."""

    scenario: str
    title: str
    commit: str
    is_dirty: bool
    """Whether there were changes that the commit does not have."""

    began: datetime
    took_s: float
    machine: Machine
    settings: dict[str, str]
    """What is not as by default, and how the load was made."""

    runs: list[Run]
    lines: list[Line]
    tables: list[Table]
    notes: list[str]

    @property
    def command(self) -> str:
        """What measures it again."""
        return f"make bench BENCH={self.scenario}"


class Results(Kept):
    """The latest outcome of each scenario."""

    outcomes: dict[str, Outcome] = {}

    def with_outcomes(self, newer: list[Outcome]) -> "Results":
        """Return these with some replaced."""
        return Results(outcomes={**self.outcomes, **{each.scenario: each for each in newer}})

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Return what was kept in a file; none if it is not there."""
        return cls.model_validate_json(path.read_bytes()) if path.exists() else cls()

    def write(self, path: Path) -> None:
        """Keep them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1) + "\n")
