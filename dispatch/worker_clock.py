"""The time of Redis, as far as a worker knows it."""

import math
import time
from typing import Final

ROUND_TRIP_S: Final = 0.1
"""So fast an answer always sets the clock, at most wrong by half of this."""

SLOWER: Final = 2.0
"""An answer that took so many times as long as the last that set the clock does not set it."""

LEEWAY: Final = 1.1
"""After one that did not, the next may take so many times longer: Redis may be further away now."""


class WorkerClock:
    """Set by answers of Redis, kept by the monotonic clock; right to half a round trip.

    However far away Redis is, some answers set it: each clock drifts, and may be put right.
    """

    def __init__(self) -> None:
        """Know nothing yet; the first answer sets it."""
        self._offset_us = 0.0
        self._limit_s = math.inf

    def now_ms(self) -> float:
        """Return the time, milliseconds since 1970."""
        return (time.monotonic() * 1e6 + self._offset_us) / 1000

    def note(self, redis_us: int, *, sent_s: float, heard_s: float) -> None:
        """Take note of the time that Redis said.

        Args:
            redis_us: microseconds since 1970.
            sent_s: when it was asked, seconds of the monotonic clock.
            heard_s: when the answer came.
        """
        if heard_s - sent_s < self._limit_s:
            self._offset_us = redis_us - (sent_s + heard_s) / 2 * 1e6
            self._limit_s = max(ROUND_TRIP_S, SLOWER * (heard_s - sent_s))
        else:
            self._limit_s *= LEEWAY
