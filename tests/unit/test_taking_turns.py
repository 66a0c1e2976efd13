"""Threads that take turns are of the policy that Linux has for it."""

import os
import subprocess
import sys

import pytest

from supervision.taking_turns import take_turns

POLICIES = """
import os, subprocess, sys, threading
from supervision.taking_turns import take_turns

def show():
    print(os.sched_getscheduler(0), flush=True)

show()
take_turns()
show()
thread = threading.Thread(target=show)
thread.start()
thread.join()
subprocess.run([sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"], check=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the policy")
def test_threads_and_children_from_then_on_take_turns() -> None:
    said = subprocess.run(
        [sys.executable, "-c", POLICIES], check=True, capture_output=True, timeout=50
    )
    before, *after = map(int, said.stdout.split())
    assert before == os.SCHED_OTHER
    assert after == [os.SCHED_BATCH] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the policy")
def test_another_policy_that_somebody_chose_stays() -> None:
    chosen = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
    said = subprocess.run(
        [sys.executable, "-c", chosen + POLICIES], check=True, capture_output=True, timeout=50
    )
    assert set(map(int, said.stdout.split())) == {os.SCHED_IDLE}


def test_nothing_happens_where_it_may_not_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*call: object) -> None:
        asked.append(call)
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)
    take_turns()
    assert len(asked) == (sys.platform == "linux")
