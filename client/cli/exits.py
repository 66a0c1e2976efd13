"""Exit codes, and what a person is told about an error."""

import enum
import math
import unicodedata
from typing import Final

from ..errors import (
    AccessDenied,
    DeadlineExceeded,
    DespachoError,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
    Unreachable,
    Unsupported,
)


class ExitCode(enum.IntEnum):
    """How the program ends; click itself uses 2 for wrong usage."""

    OK = 0
    SERVER_ERROR = 1
    BAD_INPUT = 3


def exit_code(error: DespachoError) -> ExitCode:
    """Whose fault it was."""
    if isinstance(error, InvalidInput | NotFound):
        return ExitCode.BAD_INPUT
    return ExitCode.SERVER_ERROR


def is_fatal(error: DespachoError) -> bool:
    """Whether the next call would most likely fail, too."""
    return exit_code(error) is not ExitCode.BAD_INPUT


def worst(first: ExitCode, second: ExitCode) -> ExitCode:
    """Return the one to exit with: a server error matters more than bad input."""
    return max(first, second, key=_SEVERITY.index)


def explained(error: DespachoError, server: str) -> str:
    """Say what happened and what to do next, in one or two sentences."""
    if isinstance(error, Unreachable) and "handshake" in error.message:
        return f"no encrypted connection to {server}: check --tls-ca, --tls-cert and --tls-key"
    if isinstance(error, Unreachable):
        return (
            f"no server at {server}: start one (`make up` in a checkout) or name it with --server"
        )
    hint = _HINT_OF_REASON.get(
        error.reason, next((hint for kind, hint in _HINTS if isinstance(error, kind)), "")
    )
    if error.retry_after_s is not None:
        hint = f"try again in {max(1, math.ceil(error.retry_after_s))} s"
    # What the server says may have any bytes; a terminal must not obey them.
    message = printable(error.message).rstrip(".")
    if hint:
        return f"{message}: {hint}"
    return f"{message}. {printable(error.advice)}" if error.advice else message


def printable(text: str) -> str:
    """Return `text` with control characters shown instead of sent to the terminal."""
    return "".join(
        character
        if unicodedata.category(character) not in _UNPRINTABLE
        else character.encode("unicode_escape").decode()
        for character in text
    )


_SEVERITY: Final = (ExitCode.OK, ExitCode.BAD_INPUT, ExitCode.SERVER_ERROR)

_UNPRINTABLE: Final = {"Cc", "Cs"}

_HINT_OF_REASON: Final = {
    "OPERATION_NOT_FOUND": "`despacho operations` lists what is there",
    "CREDENTIALS_MISSING": "give one with --api-key-file or DESPACHO_API_KEY",
    "SCOPE_MISSING": "ask the operator of the server",
    "DEAD_LETTER_NOT_FOUND": "`despacho dead-letters list` lists what is there",
}
"""Reasons for which there is more to say than for their class."""

_HINTS: Final[tuple[tuple[type[DespachoError], str], ...]] = (
    (NotFound, "`despacho models` lists what is served"),
    (DeadlineExceeded, "the server may be busy; give it longer with --timeout"),
    (Overloaded, "try again later"),
    (Unavailable, "try again later"),
    (Unsupported, "is this a Despacho server?"),
    (AccessDenied, "the server wants other credentials"),
)
