"""What this machine, or this container, has for us: cores and memory."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path("/")

_KIB: Final = 1024


def usable_cores(root: Path = ROOT) -> int:
    """Return how many cores this process may use, at least 1.

    Counts what the system lets it run on, and the quota of its container; of 1.5 cores that
    makes 1.

    Args:
        root: where `proc` and `sys` are.
    """
    cores = scheduled_cores()
    for folder in _cgroups(root):
        quota = _quota(folder)
        if quota is not None:
            cores = min(cores, int(quota))
    return max(1, cores)


def scheduled_cores() -> int:
    """Return how many cores the system lets this process run on, whatever its quota of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_bytes(root: Path = ROOT) -> int | None:
    """Return how much memory programs can still take; None if the system does not say.

    Args:
        root: where `proc` and `sys` are.
    """
    available = _kib_of(root / "proc" / "meminfo", "MemAvailable")
    for folder in _cgroups(root):
        left = _memory_left(folder)
        if left is not None:
            available = left if available is None else min(available, left)
    return available


def own_bytes(pid: int, root: Path = ROOT) -> int | None:
    """Return the memory that only this process uses; None if the system does not say.

    Args:
        pid: the process; one of the same user.
        root: where `proc` and `sys` are.
    """
    return _kib_of(root / "proc" / str(pid) / "smaps_rollup", "Private_Dirty")


def _cgroups(root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups that limit this process."""
    top = root / "sys" / "fs" / "cgroup"
    yield top
    for line in _lines(root / "proc" / "self" / "cgroup"):
        if line.startswith("0::/"):
            inside = Path(line.removeprefix("0::/"))
            yield from (top / folder for folder in (*inside.parents, inside) if folder.parts)


def _quota(folder: Path) -> float | None:
    """Return how many cores' worth of time a control group gets; None if all it wants."""
    for line in _lines(folder / "cpu.max"):
        quota, _, period = line.partition(" ")
        return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None
    # The first version of control groups.
    before = _number(folder / "cpu" / "cpu.cfs_quota_us")
    period_us = _number(folder / "cpu" / "cpu.cfs_period_us")
    return before / period_us if before and period_us else None


def _memory_left(folder: Path) -> int | None:
    """Return how much memory a control group may still take; None if all there is."""
    most, used = _number(folder / "memory.max"), _number(folder / "memory.current")
    # What the cache of files takes is given back when programs need it.
    cached = _number_after(folder / "memory.stat", "inactive_file")
    if used is None:
        # The first version of control groups; without a limit it says a very large number.
        before = folder / "memory"
        most = _number(before / "memory.limit_in_bytes")
        used = _number(before / "memory.usage_in_bytes")
        cached = _number_after(before / "memory.stat", "total_inactive_file")
    if most is None or used is None:
        return None
    return max(0, most - used + (cached or 0))


def _kib_of(path: Path, name: str) -> int | None:
    kib = _number_after(path, f"{name}:")
    return None if kib is None else kib * _KIB


def _number_after(path: Path, name: str) -> int | None:
    for line in _lines(path):
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdecimal():
            return int(words[1])
    return None


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
