"""What Redis answers instead of a reply, as exceptions of redis-py."""

from collections.abc import Callable
from typing import Final

from redis import exceptions


class WritesRefused(exceptions.ResponseError):
    """Redis takes no writes for now: its disk is full, or too few replicas follow it."""


_ERRORS: Final[dict[str, Callable[[str], Exception]]] = {
    "LOADING": exceptions.BusyLoadingError,
    "MISCONF": WritesRefused,
    "NOAUTH": exceptions.AuthenticationError,
    "NOREPLICAS": WritesRefused,
    "NOSCRIPT": exceptions.NoScriptError,
    "OOM": exceptions.OutOfMemoryError,
    "READONLY": exceptions.ReadOnlyError,
    "WRONGPASS": exceptions.AuthenticationError,
}
"""Errors that somebody tells from others, by the first word of their text."""


def error_of(text: str) -> Exception:
    """Return the error that Redis means.

    Args:
        text: what it says, such as `NOSCRIPT No matching script.`.
    """
    return _ERRORS.get(text.partition(" ")[0], exceptions.ResponseError)(text)
