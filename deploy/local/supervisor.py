"""Talks to supervisord, through its socket."""

import http.client
import socket
import time
import xmlrpc.client
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CALL_S: Final = 20.0
POLL_S: Final = 0.1
MAX_ENDS: Final = 2

# Faults of supervisord's API.
SHUTDOWN_STATE: Final = 6
BAD_NAME: Final = 10
NOT_RUNNING: Final = 70
ALREADY_STARTED: Final = 60

# States of supervisord's processes.
ENDED: Final = {"STOPPED", "EXITED", "FATAL"}
BACKOFF: Final = "BACKOFF"


@dataclass(frozen=True, slots=True)
class Process:
    """What supervisord knows of one service."""

    name: str

    state: str
    """STARTING, RUNNING, BACKOFF (ended early, will be started again), STOPPING, STOPPED, EXITED
    or FATAL (given up)."""

    pid: int
    """0: none."""

    started_at: int
    """Time of the last start, Unix seconds; 0: it has not been started yet."""

    ended_at: int
    """Time of the last end, Unix seconds; 0: it has not ended yet."""

    description: str
    """For a person: such as the time it has been up."""


class Supervisor:
    """A supervisord that may be running."""

    def __init__(self, path: Path) -> None:
        """Do nothing yet.

        Args:
            path: its socket.
        """
        self._proxy = xmlrpc.client.ServerProxy("http://supervisor", transport=_Transport(path))

    def is_running(self) -> bool:
        """Return whether it answers."""
        try:
            self._call("getState")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def processes(self) -> list[Process]:
        """Return all services, in the order in which they were started."""
        found = self._call("getAllProcessInfo")
        return [
            Process(
                name=str(one["name"]),
                state=str(one["statename"]),
                pid=int(one["pid"]),
                started_at=int(one["start"]),
                ended_at=int(one["stop"]),
                description=str(one["description"]),
            )
            for one in found
        ]

    def update(self) -> None:
        """Start and stop what differs between the configuration file and what runs."""
        [[added, changed, removed]] = self._call("reloadConfig")
        gone = [*removed, *changed]
        self.stop(gone)
        for name in gone:
            self._call("removeProcessGroup", name)
        for name in (*changed, *added):
            self._call("addProcessGroup", name)

    def start_ended(self) -> list[str]:
        """Start what has ended, was given up, or waits for its next try; return the names."""
        processes = self.processes()
        # What waits is not started before its time, unless it is stopped.
        self.stop(process.name for process in processes if process.state == BACKOFF)
        names = [process.name for process in processes if process.state in {*ENDED, BACKOFF}]
        for name in names:
            with suppress_fault(ALREADY_STARTED):
                self._call("startProcess", name, False)  # noqa: FBT003 - positional in the API
        return names

    def stop(self, names: Iterable[str]) -> None:
        """Stop services, all at the same time, and wait for their ends.

        supervisord kills those that take longer than their configuration allows.
        """
        waiting = set(names)
        for name in waiting:
            with suppress_fault(NOT_RUNNING, BAD_NAME):
                self._call("stopProcess", name, False)  # noqa: FBT003 - positional in the API
        while waiting & {one.name for one in self.processes() if one.state not in ENDED}:
            time.sleep(POLL_S)

    def shut_down(self) -> None:
        """Make it end; it may take some moments longer."""
        with suppress(OSError, http.client.HTTPException), suppress_fault(SHUTDOWN_STATE):
            self._call("shutdown")

    def _call(self, method: str, *arguments: object) -> Any:
        return getattr(self._proxy.supervisor, method)(*arguments)


class suppress_fault:  # noqa: N801 - reads as contextlib.suppress does
    """Go on after a fault that says what we wanted is so already."""

    def __init__(self, *codes: int) -> None:
        self._codes = codes

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: object, _traceback: object) -> bool:
        return isinstance(error, xmlrpc.client.Fault) and error.faultCode in self._codes


class StartWatch:
    """Notices services that fail to start, from the moment it is made."""

    def __init__(self) -> None:
        self._earlier: dict[str, int] = {}
        self._ends: defaultdict[str, set[int]] = defaultdict(set)

    def failed(self, processes: Iterable[Process]) -> Process | None:
        """Return a service that was given up, or that ended twice.

        Once may be bad luck. An end counts in whichever state the service is: what takes long
        to fail, such as TensorFlow with a wrong model, was RUNNING, and is started again at once.
        """
        for process in processes:
            if process.state == "FATAL":
                return process
            # What ended before the first look and lives again did not fail in this start.
            earlier = 0 if process.state == BACKOFF else process.ended_at
            if process.ended_at != self._earlier.setdefault(process.name, earlier):
                self._ends[process.name].add(process.ended_at)
                if len(self._ends[process.name]) >= MAX_ENDS:
                    return process
        return None


class _Transport(xmlrpc.client.Transport):
    """XML-RPC over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        """Connect anew for each call: supervisord may have been replaced."""
        del host
        return _Connection(self._path)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("supervisor", timeout=CALL_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(CALL_S)
            self.sock.connect(str(self._path))
        except OSError:
            # The caller closes only what was connected.
            self.sock.close()
            raise
