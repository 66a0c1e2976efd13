"""How many bytes of images all requests together keep here, and the limit on them."""

import threading
from typing import Final

from gateway.problems import Refused

RETRY_S: Final = 1.0
"""When a caller who found no room should come back, seconds."""


class HeldBytes:
    """Bytes of images that are collected, or on their way to the front-end.

    Args:
        max_bytes: most of them at a time.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._lock = threading.Lock()

    @property
    def now(self) -> int:
        """How many there are, bytes."""
        return self._held_bytes

    def hold(self) -> "Hold":
        """Return the place of one image, with nothing in it."""
        return Hold(self)

    def take(self, size_bytes: int) -> bool:
        """Count more of them; return whether there is room: otherwise nothing is counted."""
        with self._lock:
            if self._held_bytes + size_bytes > self._max_bytes:
                return False
            self._held_bytes += size_bytes
            return True

    def give_back(self, size_bytes: int) -> None:
        """Count so many of them no more."""
        with self._lock:
            self._held_bytes -= size_bytes


class Hold:
    """What one image has of them; for one thread.

    Args:
        held: those of all.
    """

    def __init__(self, held: HeldBytes) -> None:
        self._held = held
        self._size_bytes = 0
        self._is_crowded_out = False

    @property
    def size_bytes(self) -> int:
        """How many bytes it has, none once it is released."""
        return self._size_bytes

    def take(self, size_bytes: int) -> bool:
        """Keep more bytes; return whether there is room for them. After a no there is none."""
        if self._is_crowded_out or not self._held.take(size_bytes):
            self._is_crowded_out = True
            return False
        self._size_bytes += size_bytes
        return True

    def check(self) -> None:
        """Refuse an image for which there was no room.

        Raises:
            Refused: there was none.
        """
        if self._is_crowded_out:
            raise Refused(
                503,
                "the gateway keeps as many bytes of images as it may",
                reason="GATEWAY_FULL",
                retry_after_s=RETRY_S,
            )

    def release(self) -> None:
        """Say that none of them is kept any more; harmless when repeated."""
        self._held.give_back(self._size_bytes)
        self._size_bytes = 0
