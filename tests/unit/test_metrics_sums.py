"""The figures of several processes add up, those of ended ones included."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from telemetry import metrics_sums
from telemetry.metrics_instruments import Counter, Gauge, Histogram, Instrument, Labels, Values
from telemetry.metrics_sums import FORGOTTEN_S, STALE_S, SUFFIX, Sums, written

FULL = Path("/dev/full")


class Service:
    """One process: instruments of its own, by the names that all have."""

    def __init__(self, *, busy: float) -> None:
        self.seen = Counter("seen_total", "What was seen.", ("colour",))
        self.wait = Histogram("wait_seconds", "How long.", edges=(1, 2))
        self.held = Gauge("held", "How many are held.")
        self.depth = Gauge("depth", "What all see.", over_processes="max")
        self.is_up = Gauge("up", "Whether it is.", over_processes="min")
        for gauge in (self.held, self.depth, self.is_up):
            gauge.add_source(lambda: [((), (busy,))])

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        return self.seen, self.wait, self.held, self.depth, self.is_up

    def counted(self, folder: Path) -> Path:
        """Count something, and end; return the file."""
        before = set(folder.iterdir())
        with written(folder, self.instruments):
            self.seen.add("red")
            self.wait.observe(1.5)
        [path] = set(folder.iterdir()) - before
        return path


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def read(folder: Path) -> dict[str, dict[tuple[str, ...], Values]]:
    return Sums(folder, Service(busy=0).instruments).read()


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit


def test_processes_add_up(tmp_path: Path) -> None:
    Service(busy=3).counted(tmp_path)
    Service(busy=4).counted(tmp_path)
    assert read(tmp_path) == {
        "seen_total": {("red",): (2,)},
        "wait_seconds": {(): (0, 2, 0, 3)},
        "held": {(): (7,)},
        "depth": {(): (4,)},
        "up": {(): (3,)},
    }


def test_what_one_that_is_gone_has_counted_stays(tmp_path: Path) -> None:
    age(Service(busy=3).counted(tmp_path), STALE_S + 1)
    Service(busy=4).counted(tmp_path)
    found = read(tmp_path)
    assert found["seen_total"] == {("red",): (2,)}
    assert found["held"] == {(): (4,)}


def test_what_only_a_newer_process_counts_is_passed_over(tmp_path: Path) -> None:
    newer = Counter("new_total", "What the parent has never heard of.")
    newer.add()
    with written(tmp_path, [newer]):
        pass
    Service(busy=3).counted(tmp_path)
    assert read(tmp_path).keys() == {"seen_total", "wait_seconds", "held", "depth", "up"}


def test_files_of_the_gone_do_not_pile_up(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = Service(busy=3).counted(tmp_path)
    old = path.rename(tmp_path / f"{ended.pid}-0.json")
    age(old, FORGOTTEN_S + 1)
    sums = Sums(tmp_path, Service(busy=0).instruments)
    first = sums.read()
    assert not old.exists()
    assert (
        sums.read()
        == first
        == {
            "seen_total": {("red",): (1,)},
            "wait_seconds": {(): (0, 1, 0, 1.5)},
        }
    )


def test_one_that_is_only_stalled_keeps_its_file(tmp_path: Path) -> None:
    path = Service(busy=3).counted(tmp_path)
    age(path, FORGOTTEN_S + 1)
    read(tmp_path)
    assert path.exists()


def test_figures_are_written_while_the_process_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_sums, "PERIOD_S", 0.01)
    service = Service(busy=0)
    with written(tmp_path, service.instruments):
        service.seen.add("blue")
        until(lambda: read(tmp_path).get("seen_total") == {("blue",): (1,)})


def test_a_parent_that_is_gone_is_no_reason_to_fail(tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    folder.mkdir()
    with written(folder, Service(busy=0).instruments):
        # It writes at once, and then a second later.
        until(lambda: [path.suffix for path in folder.iterdir()] == [SUFFIX])
        shutil.rmtree(folder)


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_is_told_once_and_figures_come_again_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_sums, "PERIOD_S", 0.01)
    service = Service(busy=0)
    tries = []

    def tried() -> list[tuple[Labels, Values]]:
        # Asked by the writer just before it writes: what is done here does not race it.
        tries.append(1)
        if len(tries) == 2:
            [path] = tmp_path.glob(f"*{SUFFIX}")
            path.with_suffix(".new").symlink_to(FULL)
        return []

    service.held.add_source(tried)
    with structlog.testing.capture_logs() as lines, written(tmp_path, service.instruments):
        until(lambda: bool(lines))
        service.seen.add("blue")
        before = len(tries)
        until(lambda: len(tries) > before + 2)
        assert len(lines) == 1
        [fresh] = tmp_path.glob("*.new")
        fresh.unlink()
        until(lambda: read(tmp_path).get("seen_total") == {("blue",): (1,)})
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("warning", "metrics not written; trying again")
    ]
