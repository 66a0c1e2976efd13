"""When memory that is free goes back to the system: not after each image, and not never.

glibc gives back what lies at the end of its heap as soon as that is 128 KiB, unless much larger
pieces were freed before, and the next image must get it again, page by page: nineteen page faults
for a call of 100 KB. And after a burst of large images it keeps most of what was freed, as
something small that is still in use lies above it, and other processes of the machine lack it for
ever. Both are in `man 3 mallopt`.
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

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

MMAP_BYTES: Final = 32 * 1024 * 1024
"""What is larger is got from the system and given back each time; no more can be set."""

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


def govern_memory(*, keeps_free: bool) -> None:
    """Look every `PERIOD_S` for what can be given back, in a thread; does nothing without glibc.

    Args:
        keeps_free: whether to keep up to `GROWTH_BYTES` of what is free for the next image. Each
            thread may hold so much: not for a process whose threads all have large images.
    """
    trim = _malloc_trim()
    if trim is None:
        return
    if keeps_free:
        _keep_free()
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


def _keep_free() -> None:
    # Both: to set one alone ends that glibc adapts the other.
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_TRIM_THRESHOLD, GROWTH_BYTES)
    mallopt(_M_MMAP_THRESHOLD, MMAP_BYTES)
