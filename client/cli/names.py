"""From the NAMEs of the command line to names of operations and dead letters."""

import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

STDIN = "-"


class Named(NamedTuple):
    """An operation, and what the user calls it."""

    label: str
    """The image, if that is known; else the name."""

    name: str


def expand(arguments: Iterable[str]) -> Iterator[Named]:
    """Yield what the arguments name; standard input is read as it comes.

    The last word of each line is the name, and what is before it the image: what
    `submit` and `dead-letters replay` print. Empty lines are skipped.
    """
    for argument in arguments:
        if argument != STDIN:
            yield Named(argument, argument)
            continue
        for line in sys.stdin:
            if words := line.strip().rsplit(maxsplit=1):
                yield Named(words[0], words[-1])


def names(arguments: Iterable[str]) -> Iterator[str]:
    """Yield the names alone."""
    return (named.name for named in expand(arguments))
