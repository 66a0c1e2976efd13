"""A folder in the cache that is made once, whole, by one of any number of processes.

    <folder>/            what was made, and a manifest
    <folder>.<random>.partial/
                         while it is being made
    <folder>.lock        held by the process that makes it

The manifest is written last and has a digest of each file: a folder that does
not match it is made again. The lock is the kernel's, and goes with the process
that held it; so what is partial and not locked is rubbish. Each attempt has a
name of its own, since what a killed process had started may go on writing for a
moment.
"""

import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger()

MANIFEST: Final = "manifest.json"


def make_once(directory: Path, write: Callable[[Path], None], *, what: str) -> None:
    """Make a folder unless it is there and intact; any number of processes may call this at once.

    One makes it, the others wait. Only reads if it is there.

    Args:
        directory: named after all that its content depends on.
        write: fills an empty folder; what it raises leaves nothing behind.
        what: names it in the log.

    Raises:
        OSError: the cache cannot be written.
    """
    if is_intact(directory):
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    with locked(directory.with_name(directory.name + ".lock")):
        if is_intact(directory):
            return  # somebody else made it while we waited
        log.info("preparing", what=what, directory=str(directory))
        _remove_partial(directory)
        # The id of this process would not do: in containers that share a cache it is the same.
        partial = directory.with_name(f"{directory.name}.{secrets.token_hex(4)}.partial")
        try:
            partial.mkdir()
            write(partial)
            (partial / MANIFEST).write_text(json.dumps(_manifest(partial), indent=1))
            if directory.exists():
                log.warning("damaged in the cache; replaced", what=what, directory=str(directory))
                shutil.rmtree(directory)
            partial.rename(directory)
        except BaseException:
            # It may be what fills the disk.
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _remove_partial(directory: Path) -> None:
    """Remove what attempts that were cut short have left; whoever calls holds the lock."""
    for path in directory.parent.glob(f"{glob.escape(directory.name)}.*partial"):
        shutil.rmtree(path, ignore_errors=True)


def is_intact(directory: Path) -> bool:
    """Return whether every file is there and is what it was when it was made."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        return bool(manifest == _manifest(directory))
    except (OSError, ValueError):
        return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel takes back when the process dies.

    Raises:
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _manifest(directory: Path) -> dict[str, str]:
    """Return the digest of each file but the manifest, by path."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
