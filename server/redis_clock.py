"""The time of Redis, as far as a front-end knows it."""

import time
from typing import Final

MOST_ROUND_TRIP_S: Final = 0.05
"""An answer that took longer says too little of when it was made: half of it may be wrong."""


class RedisClock:
    """Set by answers of Redis, kept by the monotonic clock; right to half a round trip."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._offset_s: float | None = None

    def note(self, redis_us: int, *, sent_s: float, heard_s: float) -> None:
        """Take note of the time that Redis said.

        Args:
            redis_us: microseconds since 1970.
            sent_s: when it was asked, seconds of the monotonic clock.
            heard_s: when the answer came.
        """
        if heard_s - sent_s <= MOST_ROUND_TRIP_S:
            self._offset_s = redis_us / 1e6 - (sent_s + heard_s) / 2

    def since_s(self, redis_ms: int) -> float | None:
        """Return how long ago a moment of Redis was, seconds; None while its time is not known."""
        if self._offset_s is None:
            return None
        return max(0.0, time.monotonic() + self._offset_s - redis_ms / 1000)
