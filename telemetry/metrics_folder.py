"""The folder with the figures of several processes: it goes with the parent that made it.

One that is killed leaves it behind, and the next one removes it. What tells is a lock, which the
system drops with the process: another one may have its id by now, in a container of its own, too.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PREFIX: Final = "despacho-metrics-"

LEFT_S: Final = 60.0
"""In one that is in use something is written every second. One that is new is not locked yet."""


@contextmanager
def made() -> Iterator[Path]:
    """Make a folder, and remove those that others have left behind; it is there while inside.

    Raises:
        OSError: there is no place for it.
    """
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name, _opened(Path(name)) as descriptor:
        # Where there are no locks nobody gets one, and all folders stay.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with suppress(OSError):
                _remove_if_left(path)
        yield Path(name)


def _remove_if_left(path: Path) -> None:
    with _opened(path) as descriptor:
        found = os.fstat(descriptor)
        if found.st_uid == os.getuid() and time.time() - found.st_mtime > LEFT_S:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
