"""Runs a service in several processes: starts them, replaces those that end, stops them.

    first process ready ──▶ the others ──▶ … one ends ──▶ a pause ──▶ its successor

The first one alone prepares what all need, and shows whether the service can be run and how much
memory that takes. Each process is a worker or a front-end of its own to everybody else; the parent
knows nothing of what they do, so that its death loses none of it.
"""

import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from supervision.lifeline import BEAT, READY, VARIABLE
from supervision.stop_requests import StopRequests

log = structlog.get_logger()

REFUSED: Final = 2
"""Exit code of a process whose settings are no good: trying again changes nothing."""

FAILED_STARTS: Final = 3
"""After so many in a row, with nobody serving, the parent gives up."""

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
MOST_DOUBLINGS: Final = 10
"""Of the first pause; the longest one is reached before."""

SILENCE_LIMIT_S: Final = 30.0
"""A process that has begun to beat and is silent for so long is stuck: those who have come to it
get no answers, and the system may go on to send it others."""

MAX_WAIT_S: Final = 3600.0
"""Longest wait for news at a time; the system takes no more than 24 days."""

LOOK_S: Final = 1.0
"""How often it is noted who was silent since the last time."""

STABLE_S: Final = 60.0
"""A process that has served for so long begins again with the first pause."""


@dataclass(slots=True, eq=False)
class _Child:
    number: int
    process: subprocess.Popen[bytes]
    line: socket.socket
    kill_at: float | None
    """When it will have had long enough for what it has to do now; None: that has no limit."""

    ready_at: float | None = None
    was_slow: bool = False
    """Whether it was ended because it was not ready in time."""

    silent_looks: int | None = None
    """How many there were since its last beat; None: it has never beaten, and need not."""


def _nothing() -> None:
    """Tell nobody."""


class Supervisor:
    """The parent of several processes."""

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        environment: Mapping[str, str],
        *,
        start_timeout_s: float,
        stop_timeout_s: float,
        how_many_fit: Callable[[int], int] | None = None,
        on_serving: Callable[[], None] = _nothing,
        on_none_serving: Callable[[], None] = _nothing,
    ) -> None:
        """Start nothing yet.

        Args:
            command: starts one process.
            count: how many.
            environment: theirs, the lifeline aside.
            start_timeout_s: how long one may take until it is ready; then it is killed, and
                another one is started.
            stop_timeout_s: how long they may take to finish; then they are killed.
            how_many_fit: from the process id of the first, once it serves, how many more there is
                memory for; None: there is no need to ask.
            on_serving: called when a process is ready and no other was.
            on_none_serving: called when the last one of those that were ready has ended.
        """
        self._command = list(command)
        self._count = count
        self._environment = dict(environment)
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._how_many_fit = how_many_fit
        self._on_serving = on_serving
        self._on_none_serving = on_none_serving
        self._children: dict[int, _Child] = {}
        self._due: dict[int, float] = {1: 0.0}
        """When to start whom."""
        self._failures: dict[int, int] = {}
        """Ends in a row, by number."""
        self._look_at = 0.0
        self._failed_starts = 0
        """In a row, since somebody served."""
        self._has_served = False
        self._exit_code: int | None = None
        self._requests = StopRequests()
        self._is_urgent = False
        self._selector = selectors.DefaultSelector()
        self._bell, self._ringer = socket.socketpair()
        self._ringer.settimeout(0)

    def stop(self) -> None:
        """Ask all processes to finish, and `run` to return; safe in a signal handler.

        The second time they are ended as they are.
        """
        self._is_urgent = self._requests.note()
        self._exit_code = self._exit_code or 0
        with suppress(OSError):  # full: then it rings anyway; or closed
            self._ringer.send(b"!")

    def run(self) -> int:
        """Keep the processes running until stopped; return the exit code.

        It is that of the first process if that cannot serve: there is nothing to keep running.
        """
        self._selector.register(self._bell, selectors.EVENT_READ)
        is_stopping = False
        while self._children or self._exit_code is None:
            if self._exit_code is None:
                self._start_due()
            elif not is_stopping:
                is_stopping = True
                self._tell_all_to_stop()
            self._kill_overdue()
            for key, _ in self._selector.select(self._until_due()):
                if key.data is None:
                    self._bell.recv(64)
                else:
                    self._hear(key.data)
            self._kill_stuck()
        self._selector.close()
        self._bell.close()
        self._ringer.close()
        return self._exit_code or 0

    def _start_due(self) -> None:
        now = time.monotonic()
        for number in [number for number, at in self._due.items() if at <= now]:
            del self._due[number]
            self._start(number)

    def _until_due(self) -> float | None:
        due = [child.kill_at for child in self._children.values() if child.kill_at is not None]
        if self._exit_code is None:
            due += self._due.values()
            due += [self._look_at for child in self._beating()]
        return min(max(0.0, min(due) - time.monotonic()), MAX_WAIT_S) if due else None

    def _start(self, number: int) -> None:
        try:
            process, line = self._spawned()
        except OSError as error:
            # Such as no memory or no files for one more: no reason to end those that serve.
            self._start_later(number, 0.0, "process not started; trying again", error=str(error))
            return
        child = _Child(number, process, line, time.monotonic() + self._start_timeout_s)
        self._children[number] = child
        self._selector.register(line, selectors.EVENT_READ, child)
        log.info("process started", process=number, process_id=process.pid)

    def _spawned(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = subprocess.Popen(  # noqa: S603 - our own program
                    self._command,
                    env={**self._environment, VARIABLE: str(theirs.fileno())},
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            except OSError:
                ours.close()
                raise
        return process, ours

    def _hear(self, child: _Child) -> None:
        try:
            said = child.line.recv(64)
        except OSError:
            said = b""
        if BEAT in said:
            child.silent_looks = 0
        if not said:
            self._bury(child)
        elif READY in said and child.ready_at is None:
            if not self._is_serving():
                self._on_serving()
            child.ready_at = time.monotonic()
            if self._exit_code is None:
                child.kill_at = None
            if not self._has_served:
                self._has_served = True
                self._start_others(child)

    def _start_others(self, first: _Child) -> None:
        count = self._count
        if self._how_many_fit is not None:
            count = min(count, 1 + self._how_many_fit(first.process.pid))
        if count < self._count:
            log.warning("not enough memory for one process per core", processes=count)
        self._due.update(dict.fromkeys(range(2, count + 1), 0.0))

    def _bury(self, child: _Child) -> None:
        """Take note of the end of a process, and of what follows from it."""
        self._selector.unregister(child.line)
        child.line.close()
        del self._children[child.number]
        if child.ready_at is not None and not self._is_serving():
            self._on_none_serving()
        code = child.process.wait()
        if self._exit_code is not None:
            if code not in {0, -signal.SIGTERM}:
                log.error("process ended badly", process=child.number, exit_code=code)
                self._exit_code = self._exit_code or 1
            return
        if child.ready_at is not None or self._is_serving():
            self._failed_starts = 0
        # One that was slow may have waited for something: it comes again as long as it takes.
        elif not child.was_slow:
            self._failed_starts += 1
            if self._is_hopeless(code):
                log.error("processes do not start", exit_code=code)
                self._exit_code = REFUSED if code == REFUSED else 1
                return
        self._replace(child, code)

    def _is_serving(self) -> bool:
        return any(child.ready_at is not None for child in self._children.values())

    def _is_hopeless(self, code: int) -> bool:
        return code == REFUSED or self._failed_starts >= FAILED_STARTS

    def _replace(self, child: _Child, code: int) -> None:
        served_s = 0.0 if child.ready_at is None else time.monotonic() - child.ready_at
        self._start_later(child.number, served_s, "process ended; starting another", exit_code=code)

    def _start_later(self, number: int, served_s: float, event: str, **why: object) -> None:
        failures = 0 if served_s >= STABLE_S else self._failures.get(number, 0)
        pause_s = pause_after(failures)
        self._failures[number] = failures + 1
        self._due[number] = time.monotonic() + pause_s
        log.error(event, process=number, pause_s=pause_s, **why)

    def _tell_all_to_stop(self) -> None:
        for child in self._children.values():
            child.kill_at = time.monotonic() + self._stop_timeout_s
            child.process.send_signal(signal.SIGTERM)

    def _kill_overdue(self) -> None:
        """End those that had long enough, or all, if nobody wants to wait for them."""
        now = time.monotonic()
        for child in self._children.values():
            if child.kill_at is None or not (self._is_urgent or child.kill_at <= now):
                continue
            child.kill_at = None
            if self._is_urgent:
                why, limit_s = "told to stop again; killing process", None
            elif self._exit_code is not None:
                why, limit_s = "process does not stop; killing it", self._stop_timeout_s
            else:
                why, limit_s = "process is not ready; killing it", self._start_timeout_s
                child.was_slow = True
            log.error(why, process=child.number, process_id=child.process.pid, limit_s=limit_s)
            child.process.kill()

    def _kill_stuck(self) -> None:
        """End those that beat no more.

        What counts are our own looks, not the time: after a pause of the machine nobody was silent.
        """
        now = time.monotonic()
        if self._exit_code is not None or now < self._look_at:
            return
        self._look_at = now + LOOK_S
        for child in self._beating():
            child.silent_looks = (child.silent_looks or 0) + 1
            if child.silent_looks * LOOK_S > SILENCE_LIMIT_S:
                about = {"process": child.number, "process_id": child.process.pid}
                log.error("process is stuck; killing it", limit_s=SILENCE_LIMIT_S, **about)
                child.silent_looks = None
                child.process.kill()

    def _beating(self) -> list[_Child]:
        return [child for child in self._children.values() if child.silent_looks is not None]


def pause_after(failures: int) -> float:
    """Return how long a successor waits after so many ends in a row, seconds."""
    # Bounded: after a night of them the power would be larger than any float.
    return min(FIRST_PAUSE_S * 2.0 ** min(failures, MOST_DOUBLINGS), LONGEST_PAUSE_S)
