"""Gives memory back to the system that the C library holds on to.

After a burst of large images glibc keeps most of what was freed, as something small
that is still in use lies above it, and other processes of the machine lack it for ever.
"""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

PERIOD_S: Final = 30.0
"""How often to look."""

GROWTH_BYTES: Final = 64 * 1024 * 1024
"""How much more than after the last time must be held: looking through it stops all that
allocate, for some hundredths of a second."""

_STATM: Final = Path("/proc/self/statm")


class Trimmer:
    """Gives back what is free, when there is much of it."""

    def __init__(
        self,
        trim: Callable[[], object],
        held_bytes: Callable[[], int],
        *,
        growth_bytes: int = GROWTH_BYTES,
    ) -> None:
        """Remember what is held now.

        Args:
            trim: gives back what is free.
            held_bytes: tells how much this process holds.
            growth_bytes: how much more it must hold.
        """
        self._trim = trim
        self._held_bytes = held_bytes
        self._growth_bytes = growth_bytes
        self._last_bytes = held_bytes()

    def look(self) -> None:
        """Give back what is free, if much more is held than after the last time."""
        held = self._held_bytes()
        if held > self._last_bytes + self._growth_bytes:
            self._trim()
            held = self._held_bytes()
            # What is really in use counts as normal from now on.
            self._last_bytes = held
        else:
            self._last_bytes = min(self._last_bytes, held)


def keep_trimmed() -> None:
    """Look again and again, in a thread of its own; does nothing without glibc."""
    trim = _malloc_trim()
    if trim is None:
        return
    trimmer = Trimmer(trim, held_bytes)

    def run() -> None:
        while True:
            time.sleep(PERIOD_S)
            trimmer.look()

    threading.Thread(target=run, name="memory", daemon=True).start()


def held_bytes() -> int:
    """Return how much memory this process holds; Linux only."""
    resident_pages = int(_STATM.read_text().split()[1])
    return resident_pages * os.sysconf("SC_PAGE_SIZE")


def _malloc_trim() -> Callable[[], object] | None:
    if sys.platform != "linux":
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    return None if trim is None else lambda: trim(0)
