"""What becomes of services that are told to stop before they have anything to finish."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from supervision.supervisor import REFUSED
from tests.bench.payloads import model_directory
from tests.processes import Process
from worker.model_directory import open_model

IMPORTS = """
import runpy, sys, threading

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "pydantic":
            sys.stderr.write("importing\\n")
            threading.Event().wait()

sys.meta_path.insert(0, Slow())
runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
"""

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("service", ["server", "gateway", "worker"])
def test_a_service_ends_at_once_while_it_imports(service: str, number: signal.Signals) -> None:
    process = Process(["-c", IMPORTS, service], {})
    try:
        process.wait_for_line("importing")
        process.send(number)
        # By a handler of its own: the first process of a container has no other.
        assert process.wait(10) == 0
    finally:
        process.kill()
    assert process.log == "importing\n"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_cache_in_the_home_of_nobody_is_one_line(processes: str) -> None:
    environment = {"WORKER_CACHE_DIR": "~nosuchuser/cache", "WORKER_PROCESSES": processes}
    worker = Process(["-m", "worker"], environment)
    try:
        assert worker.wait(30) == REFUSED
    finally:
        worker.kill()
    assert worker.log.count("\n") == 1
    assert worker.log.startswith("worker: cache_dir: ")


MEASURES = """
import runpy, sys, threading
from worker import serving

def chosen(*arguments, **options):
    sys.stderr.write("measuring\\n")
    threading.Event().wait()

serving.chosen = chosen
runpy.run_module("worker", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_worker_ends_at_once_while_it_measures(tmp_path: Path, number: signal.Signals) -> None:
    environment = {"WORKER_MODEL": str(model_directory(tmp_path)), "WORKER_PROCESSES": "1"}
    worker = Process(["-c", MEASURES], environment)
    try:
        worker.wait_for_line("measuring")
        worker.send(number)
        assert worker.wait(10) == 0
    finally:
        worker.kill()


def test_a_worker_shows_figures_while_it_measures(tmp_path: Path) -> None:
    environment = {
        "WORKER_MODEL": str(model_directory(tmp_path)),
        "WORKER_PROCESSES": "1",
        "WORKER_METRICS_ADDRESS": "127.0.0.1:0",
    }
    worker = Process(["-c", MEASURES], environment)
    try:
        url = worker.wait_for_line(r"(http://127.0.0.1:\d+/metrics)").group(1)
        worker.wait_for_line("measuring")
        with urllib.request.urlopen(url, timeout=10) as page:  # noqa: S310 - our own
            assert b"despacho_processes 1.0\n" in page.read()
    finally:
        worker.kill()


PREPARES = """
import os, sys, threading
from pathlib import Path
from worker import serving
from worker.__main__ import main
from worker.prepared_folder import locked

def chosen(*arguments, **options):
    with locked(Path({lock!r})):
        sys.stderr.write(f"process {{os.getpid()}} prepares\\n")
        threading.Event().wait()

serving.chosen = chosen
sys.exit(main())
"""

PARENT = """
import sys
from worker.processes import serve_in_processes
from worker.settings import WorkerSettings

sys.exit(serve_in_processes(WorkerSettings(), [sys.executable, "-c", {child!r}]))
"""


def test_one_that_prepares_does_not_outlive_its_parent(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    child = PREPARES.format(lock=str(lock))
    environment = {"WORKER_MODEL": str(model_directory(tmp_path)), "WORKER_PROCESSES": "2"}
    parent = Process(["-c", PARENT.format(child=child)], environment)
    try:
        pid = int(parent.wait_for_line(r"process (\d+) prepares").group(1))
        parent.send(signal.SIGKILL)
        gives_up_at = time.monotonic() + 10
        try:
            # As the next parent's child would.
            while not can_be_had(lock):
                assert time.monotonic() < gives_up_at
                time.sleep(0.01)
        except AssertionError:
            os.kill(pid, signal.SIGKILL)
            raise
    finally:
        parent.kill()


def can_be_had(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


LOADS = """
import sys, threading
from worker.tune import trial_process

def load(*arguments, **options):
    sys.stderr.write("loading\\n")
    threading.Event().wait()

trial_process.load_unchecked = load
trial_process.main()
"""


def test_a_trial_does_not_outlive_the_worker_that_measures(tmp_path: Path) -> None:
    spec = open_model(str(model_directory(tmp_path)), tmp_path)
    order = {"spec": spec.model_dump(mode="json"), "threads": 1, "cache_dir": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", LOADS], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as trial:
        assert trial.stdin is not None
        assert trial.stderr is not None
        trial.stdin.write(json.dumps(order) + "\n")
        trial.stdin.flush()
        try:
            assert trial.stderr.readline() == "loading\n"
            trial.stdin.close()
            assert trial.wait(10) == 1
        finally:
            trial.kill()


CHANGES = """
import sys
from worker import serving
from worker.__main__ import main
from worker.model_spec import ModelChanged

def chosen(spec, **options):
    raise ModelChanged(spec)

serving.chosen = chosen
sys.exit(main())
"""


def test_a_model_that_changed_is_worth_another_try(tmp_path: Path) -> None:
    environment = {"WORKER_MODEL": str(model_directory(tmp_path)), "WORKER_PROCESSES": "1"}
    worker = Process(["-c", CHANGES], environment)
    try:
        code = worker.wait(30)
        assert code not in {0, REFUSED}
        worker.wait_for_line("was changed during the start", 1)
    finally:
        worker.kill()
