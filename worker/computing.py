"""Whether other workers of this machine run their models right now."""

import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger()

_TO_THE_END: Final = 0


class Computing:
    """Each process that computes holds a lock on one byte of a file that all of them share.

    The system drops the locks of a process that ends, however it ends. One that cannot have the
    file is never alone, and another that looks at the very same moment may miss it once: what hangs
    on the answer is speed.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open the file; nothing is written to it.

        Args:
            path: on a local disk; None: the one of all workers of this user, in the directory for
                temporary files. Not in the cache, which may be far away, where locks are slow.
        """
        self._at = os.getpid()
        self._file: int | None = None
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
        # Neither waits: a process that was stopped in between would stop all others.
        with suppress(OSError):
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._at)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, _TO_THE_END, 0)
        except OSError:
            return False
        fcntl.lockf(self._file, fcntl.LOCK_UN, self._at, 0)
        fcntl.lockf(self._file, fcntl.LOCK_UN, _TO_THE_END, self._at + 1)
        return True

    def end(self) -> None:
        """Say that this process computes no more."""
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, _TO_THE_END, 0)
