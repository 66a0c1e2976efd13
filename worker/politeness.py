"""How large a batch of operations may be while calls are about."""

import time
from collections.abc import Callable
from typing import Final

CALLS_ABOUT_S: Final = 2.0
"""How long after a call another one is expected."""

ALLOWANCE: Final = 0.5
"""A batch may take this much longer than one image does, as a share."""

WEIGHT: Final = 0.2
"""Of the newest measurement."""

TRIED_AFTER: Final = 30
"""So many single images after a larger batch, two are tried: nothing else would show that a
measurement was disturbed, such as by a process that was stopped for a while."""


class Politeness:
    """Learns how inference time grows with the batch.

    An inference cannot be interrupted, so a call that comes a moment too late waits for a
    whole batch of operations. Where larger batches hardly take longer, as on a GPU, that
    costs it little, and they stay large; where each image takes its time, as on a CPU,
    they shrink to an image or two, which costs the operations little.
    """

    def __init__(self, max_batch_size: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Know nothing yet.

        Args:
            max_batch_size: most images in a batch.
            clock: seconds.
        """
        self._max_batch_size = max_batch_size
        self._clock = clock
        self._last_call_at: float | None = None
        self._one_s: float | None = None
        self._more_s: float | None = None
        self._ones_in_a_row = 0

    def call_came(self) -> None:
        """Note that calls are about."""
        self._last_call_at = self._clock()

    def note(self, size: int, seconds: float) -> None:
        """Learn how long a batch took."""
        self._ones_in_a_row = self._ones_in_a_row + 1 if size == 1 else 0
        if size == 1:
            self._one_s = _smoothed(self._one_s, seconds)
        elif self._one_s is not None:
            # What takes longer than an image alone was disturbed, and says no more than that.
            more_s = min((seconds - self._one_s) / (size - 1), self._one_s)
            self._more_s = _smoothed(self._more_s, more_s)

    def batch_size(self) -> int:
        """Return most operations in the next batch."""
        if self._last_call_at is None or self._clock() - self._last_call_at > CALLS_ABOUT_S:
            return self._max_batch_size
        if self._one_s is None:
            return 1
        if self._more_s is None:
            return min(2, self._max_batch_size)
        if self._more_s * (self._max_batch_size - 1) <= ALLOWANCE * self._one_s:
            return self._max_batch_size
        tried = 2 if self._ones_in_a_row >= TRIED_AFTER else 1
        return max(1 + int(ALLOWANCE * self._one_s / self._more_s), tried)


def _smoothed(known: float | None, latest: float) -> float:
    return latest if known is None else known + WEIGHT * (latest - known)
