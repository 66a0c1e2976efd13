"""Decoded images that wait for the model, and how they become batches."""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import Final

from dispatch.jobs import CALL_PRIORITIES, Claim, Priority
from worker.batch_cost import BatchCost
from worker.engine import UInt8Array
from worker.politeness import Politeness

_OPERATIONS: Final = (Priority.OPERATION,)

HOLD_MAX_S: Final = 0.05
"""A caller who is not back by then is not asking as fast as it is answered."""

HOLDS_IN_A_ROW: Final = 6
"""So operations get at least every seventh batch that no call is ready for, and one caller who asks
as fast as it is answered waits for them in one call of seven."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One decoded image."""

    claim: Claim
    pixels: UInt8Array
    """RGB, shape (height, width, 3)."""

    queue_us: int
    decode_us: int


class ReadyQueue:
    """Filled by the decoders, emptied by the model: calls before operations.

    A batch never has both, since a larger batch takes longer: a call does not wait for
    the inference of operations that would have filled its batch up.

    The model never waits while it is idle: the first image is run as soon as it is decoded. What
    comes while it runs is the next batch, up to the size that is worth filling, and no larger than
    lets the most urgent image in it be in time. After a batch it waits for images that are nearly
    there, no longer than running them in the same batch saves.

    An inference cannot be interrupted, and a caller who sends one image after the other
    asks again just when operations would have got the model. So after a batch of calls
    operations are held for as long as that batch took: calls cost them at most twice
    their inferences.
    """

    def __init__(
        self,
        *,
        max_wait_s: float,
        cost: BatchCost,
        politeness: Politeness,
        remaining_s: Callable[[Claim], float],
        has_undecoded: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin empty.

        Args:
            max_wait_s: most that a model that was busy waits for images on their way.
            cost: knows which batches are worth filling, and how long they take.
            politeness: limits batches of operations while calls are about.
            remaining_s: seconds until nobody waits for a job any more.
            has_undecoded: whether images wait that the model's thread has to decode; never, if
                others do that.
            clock: seconds.
        """
        self._max_wait_s = max_wait_s
        self._cost = cost
        self._remaining_s = remaining_s
        self._has_undecoded = has_undecoded
        self._items: dict[Priority, deque[Prepared]] = {one: deque() for one in Priority}
        self._coming = Counter[Priority]()
        self._changed = threading.Condition()
        self._is_closed = False
        self._politeness = politeness
        self._clock = clock
        self._calls_taken_at: float | None = None
        self._holds = 0

    def expect(self, claim: Claim) -> None:
        """Say that an image is being decoded; `put` or `give_up` follows."""
        with self._changed:
            # The model stays asleep: there is nothing for it yet.
            self._coming[claim.priority] += 1

    def put(self, items: Iterable[Prepared], *, quietly: bool = False) -> None:
        """Add images that were expected.

        Args:
            items: the images.
            quietly: leave the model asleep, if it is; `calls_now` and `nudge` follow.
        """
        with self._changed:
            for item in items:
                self._coming[item.claim.priority] -= 1
                self._items[item.claim.priority].append(item)
            if not quietly:
                self._changed.notify()

    def nudge(self) -> None:
        """Wake the model, if there is something for it."""
        with self._changed:
            if self._ready(Priority):
                self._changed.notify()

    def wake_for_undecoded(self) -> None:
        """Wake the model's thread if it has something to decode."""
        if self._has_undecoded():
            with self._changed:
                self._changed.notify()

    def give_up(self, claim: Claim) -> None:
        """Say that an expected image does not come."""
        with self._changed:
            self._coming[claim.priority] -= 1
            self._changed.notify()

    def close(self) -> None:
        """Let `next_batch` return None once there are no more images."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def next_batch(self) -> list[Prepared] | None:
        """Return the next batch, waiting for its first image; None after `close`.

        It waits for images that are being decoded here, never for images that may or may not
        come. Empty, if the caller should first decode what waits for that.
        """
        with self._changed:
            while True:
                has_none = not self._ready(Priority)
                self._hold_operations()
                # A call that has ended the hold came to an idle model.
                was_idle = has_none and (self._ready(CALL_PRIORITIES) or not self._ready(Priority))
                self._changed.wait_for(
                    lambda: self._ready(Priority) or self._has_undecoded() or self._is_closed
                )
                if not was_idle:
                    self._changed.wait_for(
                        lambda: self._is_worth_running() or self._has_undecoded(), self._wait_s()
                    )
                if self._has_undecoded() and not self._is_worth_running():
                    self._calls_taken_at = None  # operations were held for long enough
                    return []
                # Empty if, meanwhile, others took by `calls_now` all there was.
                batch = self._next_calls() or self._next_operations()
                if batch or self._is_closed:
                    return batch or None

    def calls_now(self) -> list[Prepared]:
        """Return a batch of the calls that are ready, without waiting; empty if none is."""
        with self._changed:
            return self._next_calls()

    def complete_calls(self) -> list[Prepared]:
        """Return a batch of calls that is not worth waiting for; empty if none is ready."""
        with self._changed:
            is_one = self._ready(CALL_PRIORITIES) > 0 and self._is_complete(CALL_PRIORITIES)
            return self._next_calls() if is_one else []

    def _wait_s(self) -> float:
        saved_s = self._cost.saved_s()
        return self._max_wait_s if saved_s is None else min(saved_s, self._max_wait_s)

    def _hold_operations(self) -> None:
        """Let a caller who has just been answered ask again."""
        if self._calls_taken_at is None or self._has_calls() or self._holds == HOLDS_IN_A_ROW:
            return
        self._holds += 1
        took_s = self._clock() - self._calls_taken_at
        # One that is being decoded is awaited, too.
        self._changed.wait_for(
            lambda: self._ready(CALL_PRIORITIES) or self._is_call_undecoded() or self._is_closed,
            min(took_s, HOLD_MAX_S),
        )

    def _is_call_undecoded(self) -> bool:
        return self._has_undecoded() and self._expected(CALL_PRIORITIES) > 0

    def _next_calls(self) -> list[Prepared]:
        batch = self._taken(CALL_PRIORITIES, self._cost.best_size)
        self._calls_taken_at = self._clock() if batch else None
        if batch:
            self._politeness.call_came()
        return batch

    def _next_operations(self) -> list[Prepared]:
        batch = self._taken(_OPERATIONS, min(self._politeness.batch_size(), self._cost.best_size))
        if batch:
            self._holds = 0
        return batch

    def _has_calls(self) -> bool:
        """Return whether there are any, decoded or not."""
        return self._ready(CALL_PRIORITIES) + self._expected(CALL_PRIORITIES) > 0

    def lacks_images(self) -> bool:
        """Return whether a larger batch would be worth more, and what it takes is undecoded."""
        with self._changed:
            return self._has_undecoded() and not self._is_worth_running()

    def _is_worth_running(self) -> bool:
        if self._is_closed:
            return True
        return self._is_complete(CALL_PRIORITIES if self._has_calls() else _OPERATIONS)

    def _is_complete(self, priorities: Sequence[Priority]) -> bool:
        is_full = self._ready(priorities) >= self._cost.best_size
        return is_full or self._expected(priorities) == 0

    def _ready(self, priorities: Iterable[Priority]) -> int:
        return sum(len(self._items[priority]) for priority in priorities)

    def _expected(self, priorities: Iterable[Priority]) -> int:
        return sum(self._coming[priority] for priority in priorities)

    def _taken(self, priorities: Iterable[Priority], most: int) -> list[Prepared]:
        """Remove and return a batch, the first priorities first."""
        lines = [self._items[priority] for priority in priorities]
        batch = self._in_time(list(islice(chain.from_iterable(lines), most)))
        for item in batch:
            self._items[item.claim.priority].popleft()
        return batch

    def _in_time(self, items: list[Prepared]) -> list[Prepared]:
        """Return as many of these as can be run together before the first of them is too late."""
        alone_s = self._cost.seconds(1) or 0.0
        # Who would be too late in any company makes no batch smaller, for the sake of the others.
        waits_s = (self._remaining_s(item.claim) for item in items)
        left_s = list(accumulate((s if s >= alone_s else math.inf for s in waits_s), min))
        for size in range(len(items), 0, -1):
            seconds = self._cost.seconds(size)
            if seconds is None or seconds <= left_s[size - 1]:
                return items[:size]
        return items
