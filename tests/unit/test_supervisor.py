"""How the parent of several processes bears with those that end."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from supervision.supervisor import FIRST_PAUSE_S, LONGEST_PAUSE_S, Supervisor, pause_after


@pytest.mark.parametrize(
    ("failures", "pause_s"),
    [(0, FIRST_PAUSE_S), (1, 2 * FIRST_PAUSE_S), (6, LONGEST_PAUSE_S), (100_000, LONGEST_PAUSE_S)],
)
def test_pauses_grow_up_to_the_longest(failures: int, pause_s: float) -> None:
    assert pause_after(failures) == pause_s


CHILD = """
import signal, sys
from pathlib import Path
from supervision.lifeline import Lifeline

line = Lifeline.inherited()
assert line is not None
line.say_ready()
Path(sys.argv[1]).touch()
signal.pause()
"""


def test_a_process_that_cannot_be_started_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[object] = []

    def short_of_memory(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        tries.append(arguments)
        if len(tries) == 1:
            raise BlockingIOError(errno.EAGAIN, "no memory for one more")
        return popen(*arguments, **options)

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", short_of_memory)
    ready = tmp_path / "ready"
    supervisor = Supervisor(
        [sys.executable, "-c", CHILD, str(ready)],
        count=1,
        environment=os.environ,
        start_timeout_s=60,
        stop_timeout_s=60,
    )
    codes: list[int] = []
    parent = threading.Thread(target=lambda: codes.append(supervisor.run()))
    parent.start()
    gives_up_at = time.monotonic() + 30
    while not ready.exists() and time.monotonic() < gives_up_at:
        time.sleep(0.01)
    supervisor.stop()
    parent.join(30)
    assert (len(tries), codes) == (2, [0])
