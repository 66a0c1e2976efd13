"""How the parent of several processes bears with those that end."""

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
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


@pytest.mark.parametrize(
    ("module", "name", "error"),
    [
        (subprocess, "Popen", BlockingIOError(errno.EAGAIN, "no memory for one more")),
        (socket, "socketpair", OSError(errno.EMFILE, "too many open files")),
    ],
)
def test_a_process_that_cannot_be_started_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, error: OSError
) -> None:
    tries: list[object] = []

    def fails_once(*arguments: Any, **options: Any) -> object:
        tries.append(arguments)
        if len(tries) == 1:
            raise error
        return works(*arguments, **options)

    ready = tmp_path / "ready"
    supervisor = Supervisor(
        [sys.executable, "-c", CHILD, str(ready)],
        count=1,
        environment=os.environ,
        start_timeout_s=60,
        stop_timeout_s=60,
    )
    works = getattr(module, name)
    monkeypatch.setattr(module, name, fails_once)
    codes: list[int] = []
    parent = threading.Thread(target=lambda: codes.append(supervisor.run()))
    parent.start()
    gives_up_at = time.monotonic() + 30
    while parent.is_alive() and not ready.exists() and time.monotonic() < gives_up_at:
        time.sleep(0.01)
    supervisor.stop()
    parent.join(30)
    assert (len(tries), codes) == (2, [0])
