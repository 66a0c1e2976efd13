"""Ids of calls and jobs: unique, not secret."""

from random import Random
from typing import Final

BITS: Final = 128

# Seeded by the system when a process begins. To ask the system for each id is a system call,
# twice in each call.
_random: Final = Random()  # noqa: S311 - whoever guesses an id can do nothing with it


def new_id() -> str:
    """Return 32 hexadecimal digits that nobody else has."""
    return f"{_random.getrandbits(BITS):032x}"
