"""Whether a step takes so little time that handing it to another thread costs more."""

from typing import Final

HANDOVER_S: Final = 0.0003
"""About what it takes to wake another thread, or to ask Redis something."""

WEIGHT: Final = 0.1
"""Of the newest time."""

MOST: Final = 8
"""So many times the limit count as any time above: one that was disturbed says little."""


class Quickness:
    """Not quick until some times have shown it.

    Threads may note at once: the time of one of them then counts for nothing.
    """

    def __init__(self) -> None:
        self._mean_s = MOST * HANDOVER_S

    def note(self, seconds: float) -> None:
        """Learn how long the step took."""
        self._mean_s += WEIGHT * (min(seconds, MOST * HANDOVER_S) - self._mean_s)

    def __bool__(self) -> bool:
        """Return whether it usually is."""
        return self._mean_s < HANDOVER_S
