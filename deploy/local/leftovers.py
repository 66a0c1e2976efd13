"""Finds and ends processes of ours, with or without a supervisor.

Each process that we start has `DESPACHO_STACK=<folder of the state>` in its
environment. Process ids are used again after a reboot; this mark is not, so no
process of anybody else is ever ended.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MARK: Final = "DESPACHO_STACK"
TERM_S: Final = 15.0
KILL_S: Final = 5.0
POLL_S: Final = 0.1

PROC: Final = Path("/proc")


def marked(folder: Path) -> list[int]:
    """Return the ids of all processes that were started for the state in `folder`."""
    mark = f"{MARK}={folder}"
    found = _of_proc(mark) if (PROC / "self" / "environ").exists() else _of_ps(mark)
    return sorted(set(found) - {os.getpid()})


def end_marked(folder: Path) -> list[int]:
    """End them, at first politely; return those that are there still."""
    for number, limit_s in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, KILL_S)):
        for pid in marked(folder):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        if wait_until_gone(folder, limit_s):
            return []
    return marked(folder)


def wait_until_gone(folder: Path, limit_s: float) -> bool:
    """Return whether there is none left in time."""
    give_up_at = time.monotonic() + limit_s
    while marked(folder):
        if time.monotonic() > give_up_at:
            return False
        time.sleep(POLL_S)
    return True


def _of_proc(mark: str) -> Iterator[int]:
    wanted = os.fsencode(mark)
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            # It has ended, or is somebody else's.
            continue
        # A zombie has no environment any more, and does not count.
        if wanted in environment.split(b"\0"):
            yield int(entry.name)


def _of_ps(mark: str) -> Iterator[int]:
    # `e` shows the environment behind the command; as on macOS, which has no /proc.
    output = subprocess.run(
        ["/bin/ps", "axeww", "-o", "pid=,command="],
        check=True,
        stdout=subprocess.PIPE,
        encoding=sys.getfilesystemencoding(),
        errors="surrogateescape",
    ).stdout
    for line in output.splitlines():
        pid, _, rest = line.strip().partition(" ")
        # Another state's folder may begin with the name of this one.
        if f" {mark} " in f"{rest} ":
            yield int(pid)
