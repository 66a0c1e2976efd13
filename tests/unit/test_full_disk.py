"""Local services, and the commands for them, on a disk that is full."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from supervisor import loggers

from deploy import __main__ as command
from deploy.local import supervisord
from deploy.state import ROOT, write_private

FULL = Path("/dev/full")
LIMIT_S = 20.0

CONFIGURATION = f"""\
[supervisord]
nodaemon=true
silent=true
logfile={FULL}
logfile_maxbytes=0
[program:doomed]
command=sh -c "echo $$ >> pids; exec sleep 1000"
startsecs=0
"""


@contextmanager
def supervised(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a supervisord that can write to no log, nor to stderr, while inside."""
    (folder / "supervisord.conf").write_text(CONFIGURATION)
    with FULL.open("wb") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.local.supervisord", "-c", "supervisord.conf"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=full,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(LIMIT_S)


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has it")
def test_what_dies_is_started_again_while_no_log_can_be_written(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.touch()

    with supervised(tmp_path) as process:

        def wait_for(count: int) -> list[int]:
            ends_s = time.monotonic() + LIMIT_S
            while len(found := pids.read_text().split()) < count:
                assert process.poll() is None, "it has ended"
                assert time.monotonic() < ends_s
                time.sleep(0.05)
            return [int(pid) for pid in found]

        os.kill(wait_for(1)[0], signal.SIGKILL)
        wait_for(2)


def test_a_log_that_cannot_be_put_aside_is_gone_on_with(tmp_path: Path) -> None:
    log = tmp_path / "log"
    handler = loggers.RotatingFileHandler(str(log), maxBytes=10, backupCount=1)

    def close() -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    real, handler.stream = handler.stream, SimpleNamespace(tell=lambda: 11, close=close)
    supervisord.roll_over(handler)
    handler.stream.write(b"more")
    handler.stream.close()
    real.close()
    assert log.read_bytes() == b"more"


def test_a_log_for_which_there_is_no_file_begins_when_there_can_be_one(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    handler = loggers.RotatingFileHandler(str(folder / "log"), maxBytes=10, backupCount=1)
    handler.stream.write(b"0123456789")
    (folder / "log").unlink()
    folder.rmdir()
    for _ in range(2):
        supervisord.roll_over(handler)
    folder.mkdir()
    supervisord.roll_over(handler)
    handler.stream.write(b"more")
    handler.stream.close()
    assert (folder / "log").read_bytes() == b"more"


def test_what_was_remembered_stays_if_there_is_no_room_for_more(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_private(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "\ud800")  # as little as a full disk takes
    assert path.read_text() == "before"
    write_private(path, "after")
    assert path.read_text() == "after"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no room is left on the disk of"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/lock"), "Permission denied: '/x/"),
    ],
)
def test_what_the_system_refuses_is_a_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: OSError,
    words: str,
) -> None:
    def stack_of(*_: object) -> None:
        raise error

    monkeypatch.setenv("DESPACHO_STATE", str(tmp_path))
    monkeypatch.setattr(command, "stack_of", stack_of)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["deploy", "up", "--mode", "local"])
    assert command.main() == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
