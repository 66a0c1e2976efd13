"""How much processes hold, and whether that grows."""

import contextlib
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from tests.chaos.rig import rss_bytes
from tests.processes import Process

MIB: Final = 1 << 20

ALLOWED_RSS_BYTES: Final = 64 * MIB
ALLOWED_RSS_SHARE: Final = 0.10
"""Memory may grow by the larger of both: allocators keep some, and give back in lumps."""

ALLOWED_COUNT: Final = 8
"""What may be more of files, threads or tasks: connections come and go while one counts."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """One process at one moment; -1 where the system does not tell."""

    rss_bytes: int
    files: int
    threads: int
    tasks: int

    @classmethod
    def of(cls, process: Process, *, has_tasks: bool) -> "Vitals":
        """Measure a process."""
        folder = Path("/proc") / str(process.pid)
        files = threads = tasks = -1
        if sys.platform == "linux":
            files = len(list((folder / "fd").iterdir()))
            threads = len(list((folder / "task").iterdir()))
        if has_tasks:
            number = process.log.count("tasks #") + 1
            process.send(signal.SIGUSR1)
            with contextlib.suppress(AssertionError):
                tasks = int(process.wait_for_line(rf"tasks #{number} (\d+)\n", 5)[1])
        return cls(rss_bytes(process.pid), files, threads, tasks)


@dataclass(slots=True)
class Growth:
    """What was measured of one process, in the order of time."""

    name: str
    seen: list[Vitals] = field(default_factory=list)

    def thirds(self, what: str) -> tuple[float, float]:
        """Return the medians of the first third and of the last."""
        values = [getattr(vitals, what) for vitals in self.seen]
        third = max(1, len(values) // 3)
        return median(values[:third]), median(values[-third:])

    def rows(self) -> list[tuple[str, ...]]:
        """Return what is in the report: process, quantity, before, after, allowed."""
        rows: list[tuple[str, ...]] = []
        for what in ("rss_bytes", "files", "threads", "tasks"):
            before, after = self.thirds(what)
            if before < 0:
                continue
            if what == "rss_bytes":
                shown = [f"{value / MIB:.1f}" for value in (before, after, allowed(what, before))]
                rows.append((self.name, "RSS, MiB", *shown))
            else:
                shown = [f"{value:g}" for value in (before, after, allowed(what, before))]
                rows.append((self.name, what, *shown))
        return rows

    def faults(self) -> list[str]:
        """Return what has grown beyond what is allowed."""
        found = []
        for what in ("rss_bytes", "files", "threads", "tasks"):
            before, after = self.thirds(what)
            if after - before > allowed(what, before):
                found.append(f"{self.name}: {what} grew from {before:.0f} to {after:.0f}")
        return found


def allowed(what: str, before: float) -> float:
    """Return how much more there may be in the last third than in the first."""
    if what == "rss_bytes":
        return max(ALLOWED_RSS_BYTES, ALLOWED_RSS_SHARE * before)
    return ALLOWED_COUNT


def grown(growths: Sequence[Growth]) -> list[str]:
    """Return everything that has grown too much; nothing can be said of fewer than three looks."""
    return [fault for growth in growths if len(growth.seen) >= 3 for fault in growth.faults()]
