"""A worker that is told to stop before it has anything to finish."""

import signal
import urllib.request
from pathlib import Path

import pytest

from supervision.supervisor import REFUSED
from tests.bench.payloads import model_directory
from tests.processes import Process

MEASURES = """
import sys, threading
from worker import serving
from worker.__main__ import main

def chosen(*arguments, **options):
    sys.stderr.write("measuring\\n")
    threading.Event().wait()

serving.chosen = chosen
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_while_it_measures(tmp_path: Path, number: signal.Signals) -> None:
    environment = {"WORKER_MODEL": str(model_directory(tmp_path)), "WORKER_PROCESSES": "1"}
    worker = Process(["-c", MEASURES], environment)
    try:
        worker.wait_for_line("measuring")
        worker.send(number)
        # By a handler of its own: the first process of a container has no other.
        assert worker.wait(10) == 0
    finally:
        worker.kill()


def test_it_shows_figures_while_it_measures(tmp_path: Path) -> None:
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
