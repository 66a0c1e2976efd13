"""Answers that wait for others, to go to Redis together."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from dispatch.jobs import Claim
from dispatch.retiring import Ended

SHARE: Final = 0.5
"""How much longer an answer may take for it, of the time that its image was in the queue and of the
time that its caller has left."""

MOST_S: Final = 0.1
"""A model that takes longer for an image gains nothing that can be seen."""

MOST_ANSWERS: Final = 8
"""So many do not wait for more, which would hardly make each of them any cheaper."""


class Outbox:
    """Filled by whoever runs the model, emptied by any thread.

    An answer costs Redis, the front-end and its caller less when others come with it, and on a busy
    machine that is time for the model. Where images wait for each other anyway, all are answered
    sooner for it. Where they do not, no answer waits.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin empty.

        Args:
            clock: seconds.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: list[Ended] = []
        self._due_at = math.inf

    def add(self, answers: Sequence[Ended], patience_s: float) -> None:
        """Keep answers that may wait for so long."""
        with self._lock:
            self._answers += answers
            self._due_at = min(self._due_at, self._clock() + patience_s)

    def may_wait(self, seconds: float | None) -> bool:
        """Return whether there are answers, few enough, and all can wait so long; None: unknown."""
        if not self._answers or len(self._answers) >= MOST_ANSWERS or seconds is None:
            return False
        return self._clock() + seconds <= self._due_at

    def is_due(self) -> bool:
        """Return whether there is an answer that may wait no longer."""
        return bool(self._answers) and self._clock() >= self._due_at

    def claims(self) -> list[Claim]:
        """Return whose answers wait."""
        return [claim for claim, _, _ in self._answers]

    def take(self) -> list[Ended]:
        """Return all there are, and be empty."""
        with self._lock:
            answers, self._answers = self._answers, []
            self._due_at = math.inf
        return answers


def patience_s(queued_s: float, left_s: float) -> float:
    """Return how long the answer to an image may wait.

    Args:
        queued_s: how long the image was in the queue.
        left_s: until nobody waits for it any more.
    """
    return min(SHARE * queued_s, SHARE * left_s, MOST_S)
