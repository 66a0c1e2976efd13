"""What ties a process to the one that started it: one socket, whose end says it all.

The child says when it is ready, and may go on to say that it is not stuck. Either side notices the
death of the other at once, however it came about, since the system then closes its end.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

VARIABLE: Final = "DESPACHO_LIFELINE_FD"
"""Environment variable with the number of the child's end."""

READY: Final = b"r"
BEAT: Final = b"b"

BEAT_S: Final = 2.0
"""How often a process beats, if it does at all."""


class Lifeline:
    """The child's end."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._on_lost: Callable[[], None] | None = None

    @classmethod
    def inherited(cls) -> Self | None:
        """Return the end that the parent left to this process; None if there is no such parent."""
        number = os.environ.get(VARIABLE, "")
        if not number.isdecimal():
            return None
        end = socket.socket(fileno=int(number))
        # Not for what this process may start itself: it would keep the line open.
        end.set_inheritable(False)
        return cls(end)

    def say_ready(self) -> None:
        """Tell the parent that this process serves now."""
        with suppress(OSError):
            self._end.sendall(READY)

    def beat(self) -> None:
        """Tell the parent that this process is not stuck; it must hear so again and again then.

        Does not wait for the parent, which may be stuck itself.
        """
        with suppress(OSError):
            self._end.send(BEAT, socket.MSG_DONTWAIT)

    def watch(self, on_lost: Callable[[], None]) -> None:
        """Call `on_lost`, from another thread, when the parent is gone.

        It takes the place of what was to be called until now.
        """
        is_watched = self._on_lost is not None
        self._on_lost = on_lost
        if not is_watched:
            threading.Thread(target=self._wait, name="lifeline", daemon=True).start()

    def _wait(self) -> None:
        with suppress(OSError):
            while self._end.recv(1):
                pass
        if self._on_lost is not None:
            self._on_lost()
