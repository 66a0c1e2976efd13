"""Tells the first wish that a process should stop from a second one: at once, then."""

import time
from collections.abc import Callable
from typing import Final

SAME_S: Final = 0.3
"""Signals that come so close together are one wish: `timeout`, and some shells and init systems,
send theirs twice, to the process and to its group."""


class StopRequests:
    """Notes them; safe in a signal handler."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nobody has asked yet.

        Args:
            clock: seconds.
        """
        self._clock = clock
        self._first_at: float | None = None

    def note(self) -> bool:
        """Note one; return whether somebody has lost patience since the first."""
        now = self._clock()
        if self._first_at is None:
            self._first_at = now
            return False
        return now - self._first_at >= SAME_S
