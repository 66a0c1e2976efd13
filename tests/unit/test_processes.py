"""How many processes a worker has, and what each of them gets."""

import pytest
from pydantic import ValidationError

from worker import machine, processes
from worker.processes import environment_of_children, how_many_fit, process_count
from worker.settings import WorkerSettings

GIB = 1024**3


def test_auto_is_one_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 6)
    assert process_count(WorkerSettings()) == 6
    assert process_count(WorkerSettings(processes=3)) == 3


def test_the_number_of_processes_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for text, number in (("auto", "auto"), ("4", 4)):
        monkeypatch.setenv("WORKER_PROCESSES", text)
        assert WorkerSettings().processes == number
    for text in ("0", "many"):
        monkeypatch.setenv("WORKER_PROCESSES", text)
        with pytest.raises(ValidationError):
            WorkerSettings()


@pytest.mark.parametrize(("count", "threads"), [(8, "1"), (3, "2"), (16, "1")])
def test_each_process_gets_its_share_of_the_cores(count: int, threads: str) -> None:
    mine = environment_of_children({"HOME": "/"}, WorkerSettings(), cores=8, count=count)
    assert mine == {
        "HOME": "/",
        "WORKER_PROCESSES": "1",
        "WORKER_INFERENCE_THREADS": threads,
        "WORKER_ALONE_THREADS": "8",
        "WORKER_DECODE_THREADS": threads,
    }


def test_threads_that_were_set_are_kept() -> None:
    settings = WorkerSettings(inference_threads=5, decode_threads=7)
    mine = environment_of_children({}, settings, cores=8, count=8)
    assert (mine["WORKER_INFERENCE_THREADS"], mine["WORKER_DECODE_THREADS"]) == ("5", "7")
    assert mine["WORKER_ALONE_THREADS"] == "5"
    settings = WorkerSettings(inference_threads=5, alone_threads=6)
    mine = environment_of_children({}, settings, cores=8, count=8)
    assert mine["WORKER_ALONE_THREADS"] == "6"
    mine = environment_of_children({}, WorkerSettings(), cores=64, count=64)
    assert mine["WORKER_ALONE_THREADS"] == "8"


@pytest.mark.parametrize(
    ("needed", "available", "fit"),
    [(GIB, 10 * GIB, 8), (GIB, GIB, 0), (None, GIB, 6), (GIB, None, 6)],
)
def test_memory_limits_them(
    monkeypatch: pytest.MonkeyPatch, needed: int | None, available: int | None, fit: int
) -> None:
    monkeypatch.setattr(machine, "own_bytes", lambda _: needed)
    monkeypatch.setattr(machine, "available_bytes", lambda: available)
    monkeypatch.setattr(machine, "usable_cores", lambda: 6)
    assert how_many_fit(1) == fit
    assert processes.MEMORY_SHARE == 0.8
