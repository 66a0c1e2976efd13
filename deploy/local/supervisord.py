"""Run supervisord so that a full disk does not end it: `python -m deploy.local.supervisord`.

It tells on stderr what it cannot write to a log. Here that is a log on the same disk, so telling
fails as well, and nothing would be there any more to start again what dies.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor import loggers, supervisord


def be_silent(handler: Any) -> None:
    """Tell nobody."""


def roll_over(handler: Any) -> None:
    """Begin a new file if it is time; go on with this one if that fails."""
    try:
        _roll_over(handler)
    except (OSError, ValueError):
        # It is closed: something was in its buffer, or there is no room for a new one. If it
        # cannot be opened, either, that is tried again with the next line.
        with suppress(OSError):
            handler.stream = Path(handler.baseFilename).open("ab")  # noqa: SIM115 - it stays open


_roll_over = loggers.RotatingFileHandler.doRollover


def main() -> None:
    """Be supervisord."""
    loggers.Handler.handleError = be_silent
    loggers.RotatingFileHandler.doRollover = roll_over
    supervisord.main()


if __name__ == "__main__":
    main()
