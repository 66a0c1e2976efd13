"""What was measured: one row for each engine, way of running it, and size of batch."""

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

from worker.agreement import Agreement
from worker.machine import usable_cores
from worker.model_spec import EngineName, Frozen, Precision

MAX_PROCESSES: Final = 4
"""Measured at the same time; on a machine with more cores these stand for all."""

Count = Annotated[int, Field(ge=1)]


class Mode(Frozen):
    """How a worker uses the machine."""

    processes: Count
    """At the same time."""

    threads: Count
    """Of each inference."""

    def __str__(self) -> str:
        return f"{self.processes} x {self.threads}"


class Candidate(Frozen):
    """An engine that may be chosen."""

    engine: EngineName
    version: str
    precision: Precision = "float32"

    def __str__(self) -> str:
        name = f"{self.engine} {self.version}"
        return name if self.precision == "float32" else f"{name} ({self.precision})"


class Row(Frozen):
    """One measurement."""

    candidate: Candidate
    mode: Mode
    batch_size: Count

    images_per_s: Annotated[float, Field(gt=0)]
    """Of all processes together, in the best of some rounds."""

    agreement: Agreement | None
    """With TensorFlow; None: it is what the others are compared with, or there is nothing to
    compare with."""

    @property
    def ms_per_image(self) -> float:
        """How long an image takes in its process, milliseconds."""
        return 1000 * self.mode.processes / self.images_per_s

    @property
    def is_acceptable(self) -> bool:
        """Whether its scores may be used instead of TensorFlow's."""
        return self.agreement is None or self.agreement.is_within_tolerance(
            self.candidate.precision
        )


class Failure(Frozen):
    """An engine that could not be measured."""

    candidate: Candidate
    mode: Mode
    reason: str

    is_passing: bool = False
    """Whether it was the machine at that moment, such as a full disk; it is tried again."""


class Table(Frozen):
    """All that was measured for one model on one machine."""

    rows: tuple[Row, ...] = ()
    failures: tuple[Failure, ...] = ()

    def is_complete(self, candidates: Sequence[Candidate], mode: Mode) -> bool:
        """Return whether nothing has to be measured any more.

        Without the first engine, which the others are compared with, there is nothing to choose by:
        if it failed, that was of the moment, or no worker will start anyway.
        """
        measured = {row.candidate for row in self.rows if row.mode == mode}
        failed = {one.candidate for one in self.failures if one.mode == mode and not one.is_passing}
        return candidates[0] in measured and measured | failed >= {*candidates}

    def has_any(self, candidates: Sequence[Candidate], mode: Mode) -> bool:
        """Return whether there is an outcome of one of them."""
        return any(self.has(candidate, mode) for candidate in candidates)

    def has(self, candidate: Candidate, mode: Mode) -> bool:
        """Return whether there is an outcome, good or bad."""
        known = [(row.candidate, row.mode) for row in self.rows]
        known += [(failure.candidate, failure.mode) for failure in self.failures]
        return (candidate, mode) in known

    def replaced_by(self, newer: "Table") -> "Table":
        """Return both; where both have an outcome, the newer one."""
        return Table(
            rows=(*(r for r in self.rows if not newer.has(r.candidate, r.mode)), *newer.rows),
            failures=(
                *(f for f in self.failures if not newer.has(f.candidate, f.mode)),
                *newer.failures,
            ),
        )


def mode_of(threads: int) -> Mode:
    """Return how workers use this machine.

    Args:
        threads: of each inference; 0: all cores, in one process.
    """
    cores = usable_cores()
    if not threads:
        return Mode(processes=1, threads=cores)
    return Mode(processes=min(max(1, cores // threads), MAX_PROCESSES), threads=threads)
