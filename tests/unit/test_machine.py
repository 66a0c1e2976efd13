"""What the machine, or the container, has for us."""

import os
from pathlib import Path

import pytest

from worker.machine import available_bytes, own_bytes, usable_cores

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_limits_it_is_what_the_system_lets_us_run_on(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 8


def test_without_affinity_it_is_what_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usable_cores(tmp_path) == 3


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("max 100000", 8)],
)
def test_the_quota_of_the_container_counts(tmp_path: Path, quota: str, cores: int) -> None:
    write(tmp_path, "sys/fs/cgroup/cpu.max", f"{quota}\n")
    assert usable_cores(tmp_path) == cores


def test_the_quota_of_an_outer_group_counts_as_well(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/outer/inner\n")
    write(tmp_path, "sys/fs/cgroup/outer/cpu.max", "300000 100000\n")
    write(tmp_path, "sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n")
    assert usable_cores(tmp_path) == 3


def test_the_quota_of_the_first_version_of_control_groups_counts(tmp_path: Path) -> None:
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000\n")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert usable_cores(tmp_path) == 4
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    assert usable_cores(tmp_path) == 8


def test_memory_is_what_is_left_to_the_machine_or_to_the_container(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
    write(tmp_path, "proc/meminfo", "MemTotal: 9999 kB\nMemAvailable:    4096 kB\n")
    assert available_bytes(tmp_path) == 4 * MIB
    write(tmp_path, "sys/fs/cgroup/memory.max", "max\n")
    write(tmp_path, "sys/fs/cgroup/memory.current", f"{3 * MIB}\n")
    assert available_bytes(tmp_path) == 4 * MIB
    write(tmp_path, "sys/fs/cgroup/memory.max", f"{5 * MIB}\n")
    write(tmp_path, "sys/fs/cgroup/memory.stat", f"anon 1\ninactive_file {MIB}\n")
    assert available_bytes(tmp_path) == 3 * MIB


def test_the_memory_of_the_first_version_of_control_groups_counts(tmp_path: Path) -> None:
    write(tmp_path, "proc/meminfo", "MemTotal: 9999 kB\nMemAvailable:    8192 kB\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.usage_in_bytes", f"{3 * MIB}\n")
    assert available_bytes(tmp_path) == 8 * MIB
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{5 * MIB}\n")
    assert available_bytes(tmp_path) == 2 * MIB
    stat = f"inactive_file 7\ntotal_inactive_file {MIB}\n"
    write(tmp_path, "sys/fs/cgroup/memory/memory.stat", stat)
    assert available_bytes(tmp_path) == 3 * MIB


def test_what_only_one_process_uses(tmp_path: Path) -> None:
    assert own_bytes(7, tmp_path) is None
    write(tmp_path, "proc/7/smaps_rollup", "Rss: 9000 kB\nPrivate_Dirty:      2048 kB\n")
    assert own_bytes(7, tmp_path) == 2 * MIB
