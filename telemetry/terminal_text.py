"""Text of callers on somebody's terminal, which takes some characters for commands."""

import io
from typing import Any, Final, TextIO

import structlog

LAYOUT: Final = {"stack", "exception"}
"""Fields that have several lines."""


def escaped(text: str, *, keep: str = "") -> str:
    r"""Return a text with `\x1b` and its like for all that is not shown as a character.

    Args:
        text: may come from a caller.
        keep: what to leave as it is, such as the end of a line.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode()
        for character in text
    )


def fields_made_safe(
    _logger: Any, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape what is text; of all else Python's own notation is shown, which escapes."""
    return {
        name: escaped(value, keep="\n\t" if name in LAYOUT else "")
        if isinstance(value, str)
        else value
        for name, value in event.items()
    }


def write_traceback(sink: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    """Write a traceback without the values of variables; its messages may quote a caller."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    sink.write(escaped(text.getvalue(), keep="\n\t"))
