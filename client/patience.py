"""How long to go on trying, and how long to rest between attempts; no I/O.

gRPC itself tries again what failed with UNAVAILABLE, five times at most and often
for less than a second: too short for a server that is restarted. Where the server
is overloaded it would wait exactly as long as the server says, and so would all
the other clients that were refused: they would come back as a herd, and be
refused again. So these waits are ours, and random.
"""

import random
import time
from collections.abc import Callable
from typing import Final

from .errors import DeadlineExceeded, DespachoError, Overloaded, Unavailable, Unreachable

SPREAD: Final = 1.5
"""Longest wait for each second that the server asks for. Never shorter than asked
for: the server knows when there will be room."""

MIN_PAUSE_S: Final = 0.05
"""Shortest wait, however short the server's hint is."""

WAIT_SHARE_S: Final = 60.0
"""Longest time that one WaitOperation is asked to wait; short enough for the
limits of proxies and for servers to be replaced."""

ANSWER_S: Final = 5.0
"""How much longer than its waiting such a call may take, seconds."""

FIRST_PAUSE_S: Final = 0.25
MAX_PAUSE_S: Final = 5.0
"""First and longest rest while the server is away, before it is spread."""


class Patience:
    """The time that one call of the caller's has, retries included.

    Args:
        timeout_s: all of it.
        now: monotonic clock, seconds.
        uniform: draws a number between two.
    """

    def __init__(
        self,
        timeout_s: float,
        *,
        now: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.now = now
        """The clock."""
        self._uniform = uniform
        self._ends_at = now() + timeout_s
        self._away_pause_s = FIRST_PAUSE_S
        # Of the last refusal, without its traceback, whose frames hold this.
        self._told = ("", "", "")
        self._hint_s: float | None = None

    def left_s(self) -> float:
        """Return the time that is left; 0 when it is over."""
        return max(0.0, self._ends_at - self.now())

    def pause_s(self, refusal: DespachoError, *, was_reached: bool) -> float | None:
        """Return how long to rest before the next attempt; None: give up.

        Overload is waited out only as the server asks for, and nothing without time
        left afterwards: then the caller still learns the reason.

        Args:
            refusal: why the last attempt failed.
            was_reached: whether the server has ever answered. One that has not may
                have another address, and whoever made a mistake is told soon.
        """
        self._told = (refusal.message, refusal.reason, refusal.advice)
        self._hint_s = hint_s = refusal.retry_after_s
        match refusal:
            case Overloaded() if hint_s is not None:
                pause_s = max(hint_s, MIN_PAUSE_S)
            case Unavailable() if was_reached or not isinstance(refusal, Unreachable):
                pause_s = max(hint_s or 0.0, self._away_pause_s)
                self._away_pause_s = min(2 * self._away_pause_s, MAX_PAUSE_S)
            case _:
                return None
        pause_s = self.spread(pause_s)
        return pause_s if pause_s < self.left_s() else None

    def explain(self, late: DeadlineExceeded) -> None:
        """Let the end of the time say why the attempt before failed, if one did.

        The last one may have failed for the same reason: gRPC, which tries again by
        itself until the time is over, does not tell.
        """
        message, reason, advice = self._told
        if message and not late.reason:
            late.message = f"{late.message}; before that: {message}"
            late.args = (late.message,)
            late.reason, late.advice, late.retry_after_s = reason, advice, self._hint_s

    def spread(self, pause_s: float) -> float:
        """Make a wait longer at random, so that clients do not come all at once."""
        return pause_s * self._uniform(1.0, SPREAD)


class Vigil:
    """How the wait for one operation is divided into calls.

    A call that comes back early is followed by a rest, each longer than the one
    before: a server may answer at once that the operation is not done, and one
    that is being replaced may be away for a while.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._share_s = 0.0
        self._asked_at = 0.0
        self._early_pause_s = FIRST_PAUSE_S

    def share_s(self) -> float:
        """Return how long the next call is to wait; 0 when the time is over."""
        self._asked_at = self._patience.now()
        self._share_s = min(self._patience.left_s(), WAIT_SHARE_S)
        return self._share_s

    def pause_s(self, failure: DespachoError | None = None) -> float:
        """Return how long to rest after a call that did not bring the end."""
        if self._patience.now() - self._asked_at > self._share_s / 2:
            self._early_pause_s = FIRST_PAUSE_S
            return 0.0
        hint_s = failure.retry_after_s or 0.0 if failure is not None else 0.0
        pause_s = max(hint_s, self._early_pause_s)
        self._early_pause_s = min(2 * self._early_pause_s, MAX_PAUSE_S)
        return min(self._patience.spread(pause_s), self._patience.left_s())
