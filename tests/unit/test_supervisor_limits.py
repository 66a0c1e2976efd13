"""How long the parent of several processes waits for them, and what it does then."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from supervision import stop_requests
from supervision.stop_requests import SAME_S, StopRequests
from supervision.supervisor import (
    FAILED_STARTS,
    FIRST_PAUSE_S,
    LOOK_S,
    REFUSED,
    SILENCE_LIMIT_S,
    STABLE_S,
    Supervisor,
)

LIMIT_S = 30.0

KILLED = "process is not ready; killing it"
STUCK = "process is stuck; killing it"
ENDED = "process ended; starting another"

CHILD = """
import signal
import subprocess
import sys
from pathlib import Path
from supervision.lifeline import Lifeline

line = Lifeline.inherited()
assert line is not None
"""

HANGS_ONCE = (
    CHILD
    + """
path = Path(sys.argv[1])
if not path.exists():
    path.touch()
    signal.pause()
line.say_ready()
signal.pause()
"""
)

SERVES_ALONE = (
    CHILD
    + """
served, fails = Path(sys.argv[1], "served"), Path(sys.argv[1], "fails")
try:
    served.touch(exist_ok=False)
except FileExistsError:
    sys.exit(1)
if fails.exists():
    fails.unlink()
    served.unlink()
    sys.exit(1)
line.say_ready()
signal.pause()
"""
)
"""One at a time, and not the one that finds the file `fails`."""

NEVER_STOPS = (
    CHILD
    + """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
line.say_ready()
signal.pause()
"""
)


class Parent:
    """A supervisor, in a thread."""

    def __init__(
        self, *command: str, count: int, start_timeout_s: float, stop_timeout_s: float
    ) -> None:
        self.is_ready = threading.Event()
        self.codes: list[int] = []
        self.supervisor = Supervisor(
            [sys.executable, "-c", *command],
            count=count,
            environment=os.environ,
            start_timeout_s=start_timeout_s,
            stop_timeout_s=stop_timeout_s,
            on_serving=self.is_ready.set,
        )
        self.thread = threading.Thread(target=lambda: self.codes.append(self.supervisor.run()))

    def ended(self) -> int:
        """Wait for its end; return the exit code."""
        self.thread.join(LIMIT_S)
        (code,) = self.codes
        return code


@contextmanager
def parent(
    *command: str, count: int = 1, start_timeout_s: float = 600, stop_timeout_s: float = 600
) -> Iterator[Parent]:
    one = Parent(
        *command, count=count, start_timeout_s=start_timeout_s, stop_timeout_s=stop_timeout_s
    )
    one.thread.start()
    try:
        yield one
    finally:
        # Without a time between them: two of them end everything.
        while one.thread.is_alive():
            one.supervisor.stop()
            one.thread.join(SAME_S)


def events(lines: list[structlog.typing.EventDict]) -> list[str]:
    return [str(line["event"]) for line in lines]


def test_a_process_that_is_never_ready_is_killed_and_replaced(tmp_path: Path) -> None:
    with (
        structlog.testing.capture_logs() as lines,
        parent(HANGS_ONCE, str(tmp_path / "tried"), start_timeout_s=1) as one,
    ):
        assert one.is_ready.wait(LIMIT_S)
        one.supervisor.stop()
        assert one.ended() == 0
    killed = next(line for line in lines if line["event"] == KILLED)
    assert (killed["process"], killed["limit_s"]) == (1, 1)
    replaced = next(line for line in lines if line["event"] == ENDED)
    assert replaced["exit_code"] == -9
    assert replaced["pause_s"] > 0


def test_limits_may_be_longer_than_the_system_waits_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "tried").touch()
    century_s = 3e9
    with parent(
        HANGS_ONCE,
        str(tmp_path / "tried"),
        start_timeout_s=century_s,
        stop_timeout_s=century_s,
    ) as one:
        assert one.is_ready.wait(LIMIT_S)
        one.supervisor.stop()
        assert one.ended() == 0


def test_slow_starts_do_not_make_the_parent_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # They may all wait for something that is not there yet.
    monkeypatch.setattr("supervision.supervisor.FIRST_PAUSE_S", 0.01)
    gives_up_at = time.monotonic() + LIMIT_S
    with (
        structlog.testing.capture_logs() as lines,
        parent("import signal; signal.pause()", start_timeout_s=0.05) as one,
    ):
        while events(lines).count(KILLED) <= FAILED_STARTS and time.monotonic() < gives_up_at:
            one.thread.join(0.01)
        assert one.thread.is_alive()
    assert events(lines).count(KILLED) > FAILED_STARTS
    assert "processes do not start" not in events(lines)


def test_failures_beside_one_that_serves_do_not_count_when_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Such as for lack of memory for two.
    monkeypatch.setattr("supervision.supervisor.FIRST_PAUSE_S", 0.1)
    gives_up_at = time.monotonic() + LIMIT_S
    with (
        structlog.testing.capture_logs() as lines,
        parent(SERVES_ALONE, str(tmp_path), count=2) as one,
    ):
        assert one.is_ready.wait(LIMIT_S)
        while events(lines).count(ENDED) < FAILED_STARTS and time.monotonic() < gives_up_at:
            one.thread.join(0.01)
        one.is_ready.clear()
        (tmp_path / "fails").touch()
        os.kill(lines[0]["process_id"], signal.SIGKILL)
        (tmp_path / "served").unlink()
        assert one.is_ready.wait(LIMIT_S)
    assert not (tmp_path / "fails").exists()


BEATS_ONCE = (
    CHILD
    + """
line.say_ready()
line.beat()
signal.pause()
"""
)


def test_a_process_that_beats_no_more_is_killed_and_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("supervision.supervisor.SILENCE_LIMIT_S", 1)
    with structlog.testing.capture_logs() as lines, parent(BEATS_ONCE) as one:
        assert one.is_ready.wait(LIMIT_S)
        one.is_ready.clear()
        assert one.is_ready.wait(LIMIT_S)
    assert events(lines)[:4] == ["process started", STUCK, ENDED, "process started"]


@pytest.fixture
def looked_after() -> Iterator[tuple[Supervisor, subprocess.Popen[bytes]]]:
    """A parent that does not run, and a child that has beaten once."""
    supervisor = Supervisor(
        [sys.executable, "-c", BEATS_ONCE],
        count=1,
        environment=os.environ,
        start_timeout_s=600,
        stop_timeout_s=600,
    )
    supervisor._start_due()
    child = supervisor._children[1]
    while child.silent_looks is None:
        supervisor._hear(child)
    yield supervisor, child.process
    child.process.kill()
    while supervisor._children:
        supervisor._hear(child)
    for end in (supervisor._selector, supervisor._bell, supervisor._ringer):
        end.close()


def test_one_that_was_ready_in_time_may_run_for_ever(
    looked_after: tuple[Supervisor, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, _ = looked_after
    later = time.monotonic() + 1e6
    monkeypatch.setattr("supervision.supervisor.time", SimpleNamespace(monotonic=lambda: later))
    with structlog.testing.capture_logs() as lines:
        supervisor._kill_overdue()
    assert lines == []


def test_one_that_has_served_for_long_begins_again_with_the_first_pause(
    looked_after: tuple[Supervisor, subprocess.Popen[bytes]],
) -> None:
    supervisor, _ = looked_after
    with structlog.testing.capture_logs() as lines:
        for served_s in (0.0, 0.0, STABLE_S, 0.0):
            supervisor._start_later(1, served_s, ENDED)
    pauses = [line["pause_s"] for line in lines]
    assert pauses == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, FIRST_PAUSE_S, 2 * FIRST_PAUSE_S]


def test_one_whose_settings_are_no_good_is_not_tried_again() -> None:
    with (
        structlog.testing.capture_logs() as lines,
        parent(f"raise SystemExit({REFUSED})") as one,
    ):
        assert one.ended() == REFUSED
    assert events(lines) == ["process started", "processes do not start"]


def test_after_a_pause_of_all_nobody_was_silent(
    looked_after: tuple[Supervisor, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, process = looked_after
    now = 1000.0
    monkeypatch.setattr("supervision.supervisor.time", SimpleNamespace(monotonic=lambda: now))
    for pause_s in (
        LOOK_S,
        10 * SILENCE_LIMIT_S,
        *repeat(LOOK_S, int(SILENCE_LIMIT_S / LOOK_S) - 2),
    ):
        now += pause_s
        supervisor._kill_stuck()
        supervisor._kill_stuck()  # too soon to count
    assert supervisor._beating()
    now += LOOK_S
    supervisor._kill_stuck()
    assert process.wait(LIMIT_S) == -signal.SIGKILL


def test_a_process_that_does_not_stop_is_killed() -> None:
    with (
        structlog.testing.capture_logs() as lines,
        parent(NEVER_STOPS, stop_timeout_s=0.2) as one,
    ):
        assert one.is_ready.wait(LIMIT_S)
        one.supervisor.stop()
        assert one.ended() == 1
    assert events(lines)[-2:] == ["process does not stop; killing it", "process ended badly"]
    assert lines[-1]["exit_code"] == -9


def test_the_second_stop_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_requests, "SAME_S", 0)
    with structlog.testing.capture_logs() as lines, parent(NEVER_STOPS) as one:
        assert one.is_ready.wait(LIMIT_S)
        one.supervisor.stop()
        assert one.thread.is_alive()
        one.supervisor.stop()
        assert one.ended() == 1
    assert events(lines)[-2:] == ["told to stop again; killing process", "process ended badly"]


def test_signals_that_come_together_are_one_wish() -> None:
    now = 100.0
    requests = StopRequests(clock=lambda: now)
    assert not requests.note()
    now += SAME_S / 2
    assert not requests.note()
    now += SAME_S
    assert requests.note()
