"""Whether other workers of this machine run their models right now."""

import fcntl
import os
import struct
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger()

_IS_LINUX: Final = sys.platform == "linux"

_FLOCK: Final = "hhqqi" if _IS_LINUX else "qqihh"
"""`struct flock` of Linux: type, whence, start, length, process; macOS has the first two last."""

_TO_THE_END: Final = 0

_PLACES: Final = 4
"""Bytes of a random number: which byte of the file is ours. Not the process id, which processes in
different containers may have in common."""

TOUCH_PERIOD_S: Final = 3600.0
"""What deletes old temporary files after some days must not take this one for old."""


class Computing:
    """Each process that computes holds a lock on one byte of a file that all of them share.

    The system drops the locks of a process that ends, however it ends. One that cannot have the
    file is never alone.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open the file; nothing is written to it.

        Args:
            path: on a local disk; None: the one of all workers of this user, in the directory for
                temporary files. Not in the cache, which may be far away, where locks are slow.
        """
        self._at = int.from_bytes(os.urandom(_PLACES), "big")
        self._file: int | None = None
        self._touch_at = 0.0
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            path = path or Path(tempfile.gettempdir()) / f"despacho-computing-{os.getuid()}"
            self._file = os.open(path, flags, 0o600)
        except OSError as error:
            log.warning("one image does not get all cores", error=str(error))

    def begin(self) -> bool:
        """Say that this process computes, until `end`; return whether it is the only one."""
        if self._file is None:
            return False
        asked = struct.pack(_FLOCK, *_whole_file(fcntl.F_WRLCK))
        try:
            self._touch(self._file)
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._at)
            found = struct.unpack(_FLOCK, fcntl.fcntl(self._file, fcntl.F_GETLK, asked))
        except OSError:
            # Whatever is wrong with the file, what hangs on it is speed.
            return False
        return _type_in(found) == fcntl.F_UNLCK

    def end(self) -> None:
        """Say that this process computes no more."""
        if self._file is not None:
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._at)

    def _touch(self, file: int) -> None:
        now = time.monotonic()
        if now >= self._touch_at:
            self._touch_at = now + TOUCH_PERIOD_S
            os.utime(file)


def _whole_file(kind: int) -> tuple[int, ...]:
    """Return the fields of a lock on all of a file, in the order of `_FLOCK`."""
    if _IS_LINUX:
        return kind, os.SEEK_SET, 0, _TO_THE_END, 0
    return 0, _TO_THE_END, 0, kind, os.SEEK_SET


def _type_in(fields: tuple[int, ...]) -> int:
    return fields[0] if _IS_LINUX else fields[3]
