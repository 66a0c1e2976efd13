"""When memory that is free goes back to the system: not after each image, and not never.

glibc gives back what lies at the end of its heap as soon as that is 128 KiB, unless much larger
pieces were freed before, and the next image must get it again, page by page: nineteen page faults
for a call of 100 KB. And after a burst of large images it keeps most of what was freed, as
something small that is still in use lies above it, and other processes of the machine lack it for
ever. Both are in `man 3 mallopt`.
"""

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

PERIOD_S: Final = 10.0
"""How often what is free is given back. That stops all that allocate for some milliseconds, and
fewer than one call of a thousand, of those that come alone, should meet it."""

KEPT_BYTES: Final = 64 * 1024 * 1024
"""How much of it may be kept until then by a process that `keeps_free`."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

MMAP_BYTES: Final = 32 * 1024 * 1024
"""What is larger is got from the system and given back each time; no more can be set."""


def govern_memory(*, keeps_free: bool, period_s: float = PERIOD_S) -> None:
    """Give back what is free every `period_s`, in a thread; does nothing without glibc.

    However much is held: what is in use by an image at such a moment cannot be told from what is
    always in use, so a process that compares what it holds now with what it held then may keep the
    size of that image for good.

    Args:
        keeps_free: whether to keep up to `KEPT_BYTES` of what is free for the next image. Each
            thread may hold so much: not for a process whose threads all have large images.
        period_s: how often.
    """
    trim = _malloc_trim()
    if trim is None:
        return
    if keeps_free:
        _keep_free()

    def run() -> None:
        while True:
            time.sleep(period_s)
            trim()

    threading.Thread(target=run, name="memory", daemon=True).start()


def _malloc_trim() -> Callable[[], object] | None:
    if sys.platform != "linux":
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    return None if trim is None else lambda: trim(0)


def _keep_free() -> None:
    # Both: to set one alone ends that glibc adapts the other.
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
    mallopt(_M_MMAP_THRESHOLD, MMAP_BYTES)
