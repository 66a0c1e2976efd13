"""Decoded images that wait for the model, and how they become batches."""

import threading
import time
from collections import deque
from dataclasses import dataclass

from dispatch.jobs import Claim
from worker.engine import UInt8Array


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One decoded image."""

    claim: Claim
    pixels: UInt8Array
    """RGB, shape (height, width, 3)."""

    queue_us: int
    decode_us: int


class ReadyQueue:
    """Filled by the decoders, emptied by the model."""

    def __init__(self, *, max_batch_size: int, max_wait_s: float) -> None:
        """Begin empty.

        Args:
            max_batch_size: most images in a batch.
            max_wait_s: how long the first image of a batch waits for those on their way.
        """
        self._max_batch_size = max_batch_size
        self._max_wait_s = max_wait_s
        self._items: deque[Prepared] = deque()
        self._coming = 0
        self._changed = threading.Condition()
        self._is_closed = False

    def expect(self) -> None:
        """Say that an image is being decoded; `put` or `give_up` follows."""
        with self._changed:
            self._coming += 1

    def put(self, item: Prepared) -> None:
        """Add an image that was expected."""
        with self._changed:
            self._coming -= 1
            self._items.append(item)
            self._changed.notify()

    def give_up(self) -> None:
        """Say that an expected image does not come."""
        with self._changed:
            self._coming -= 1
            self._changed.notify()

    def close(self) -> None:
        """Let `next_batch` return None once there are no more images."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def next_batch(self) -> list[Prepared] | None:
        """Return the next batch, waiting for its first image; None after `close`.

        A batch that is not full waits for images that are being decoded here,
        never for images that may or may not come.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_closed)
            if not self._items:
                return None
            give_up_at = time.monotonic() + self._max_wait_s
            while not self._is_worth_running():
                remaining_s = give_up_at - time.monotonic()
                if remaining_s <= 0 or not self._changed.wait(remaining_s):
                    break
            size = min(len(self._items), self._max_batch_size)
            return [self._items.popleft() for _ in range(size)]

    def _is_worth_running(self) -> bool:
        is_full = len(self._items) >= self._max_batch_size
        return is_full or self._coming == 0 or self._is_closed
