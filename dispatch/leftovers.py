"""Whether a worker that has just taken jobs left any behind, known or supposed."""

import math
import random
import time
from typing import Final

FRESH_S: Final = 0.005
"""How long it is believed that nothing is left. For longer, jobs of all priorities may have come,
of which the higher ones must be taken first."""

MOST_UNASKED: Final = 8
"""Reads in a row after which it is only supposed."""


class Leftovers:
    """What the claims of some priorities left behind.

    A read that waited took what came, one or a few jobs. Others may have come with them, so Redis
    is asked. Where the answer is nothing, again and again, it is asked more and more rarely, as
    that costs it as much as the job. A wrong guess costs reads that take few jobs at a time, none
    of which waits.

    Threads may share it.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._none_at = -math.inf
        self._none_in_a_row = 0
        self._unasked = 0
        self._most_unasked = 0

    def are_none(self) -> bool:
        """Return whether nothing was left just now."""
        return time.monotonic() - self._none_at < FRESH_S

    def are_in_doubt(self) -> bool:
        """Return whether to ask after the next read that waits."""
        return self._unasked >= self._most_unasked

    def note(self, *, none: bool) -> None:
        """Learn whether a claim has left nothing."""
        self._none_at = time.monotonic() if none else -math.inf

    def note_asked(self, *, none: bool) -> None:
        """Learn what the answer was after a read that waited."""
        self._unasked = 0
        self._none_in_a_row = min(self._none_in_a_row + 1, MOST_UNASKED) if none else 0
        # By chance: jobs that always come by so many would always be asked about after the last.
        fewest = self._none_in_a_row // 2
        self._most_unasked = random.randint(fewest, self._none_in_a_row)  # noqa: S311

    def note_unasked(self) -> None:
        """Learn that a read waited, and it was not asked what is left."""
        self._unasked += 1
