"""How many files, and so connections, this process may have open."""

import resource
import sys
from contextlib import suppress
from typing import Final

WANTED: Final = 10_240
"""More is of no use here, and macOS allows no more."""


def limit() -> int:
    """Return how many there may be."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _number(soft)


def raise_limit() -> None:
    """Allow more, as far as this process may; the usual limit is for those that use `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(WANTED, _number(hard))
    if most > _number(soft):
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _number(value: int) -> int:
    return sys.maxsize if value == resource.RLIM_INFINITY else value
