"""How much processor time and memory processes take."""

import resource
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import psutil

from tests.bench.results import Disturbance
from worker.machine import usable_cores

MIB: Final = 2**20

LOAD: Final = "load"
"""What drives the load: processes that have ended inside of the meter, and this one."""


class Meter:
    """Measures while it is entered; of processes with all that they have started.

    Args:
        groups: ids of processes, by the name that they go by.
    """

    def __init__(self, groups: Mapping[str, Sequence[int]]) -> None:
        self._groups = {
            name: [member for pid in pids for member in family(pid)]
            for name, pids in groups.items()
        }
        self._before: dict[str, float] = {}
        self._latest: dict[int, float] = {}
        """Processor time by process id, as it was when it was last seen."""

        self._machine = psutil.cpu_times()
        self._began = 0.0
        self.seconds = 0.0
        self.cpu_s: dict[str, float] = {}
        """Processor time by name, once it is over."""

        self.disturbance = Disturbance()

    def __enter__(self) -> Self:
        """Begin."""
        self._machine = psutil.cpu_times()
        self._before = self._now()
        self._began = time.monotonic()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        self.seconds = self.so_far_s
        now = self._now()
        self.cpu_s = {name: now[name] - before for name, before in self._before.items()}
        self.disturbance = self._elsewhere()

    @property
    def so_far_s(self) -> float:
        """How long it has measured, seconds."""
        return time.monotonic() - self._began

    def rss_mb(self) -> dict[str, float]:
        """Return the resident memory by name, MiB."""
        return {name: sum(map(_rss, processes)) / MIB for name, processes in self._groups.items()}

    def _now(self) -> dict[str, float]:
        used = {name: sum(map(self._cpu_s, members)) for name, members in self._groups.items()}
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = resource.getrusage(resource.RUSAGE_SELF)
        used[LOAD] = sum(each.ru_utime + each.ru_stime for each in (ended, own))
        return used

    def _cpu_s(self, process: psutil.Process) -> float:
        """Return its processor time; of one that has ended, as rewrites of Redis do, the last."""
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            self._latest[process.pid] = times.user + times.system
        return self._latest.get(process.pid, 0.0)

    def _elsewhere(self) -> Disturbance:
        """Return what went to others, as shares of what the processors had to give."""
        before, after = self._machine, psutil.cpu_times()
        # As many as the workers count: a container may have fewer than the machine.
        had = self.seconds * usable_cores()
        # Linux counts what runs with a lower priority apart; macOS has `nice`, and always 0.
        kinds = ("user", "nice", "system")
        busy = sum(getattr(after, kind, 0.0) - getattr(before, kind, 0.0) for kind in kinds)
        # Only Linux says what the host took.
        stolen = getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)
        foreign = max(0.0, busy - sum(self.cpu_s.values()))
        return Disturbance(steal=round(stolen / had, 4), foreign=round(foreign / had, 4))


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all that it has started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
