"""What goes wrong when starting and stopping, told to a person."""


class StackError(Exception):
    """It cannot be done; the text says why, and what to try.

    Args:
        message: one or a few lines.
        log: last lines of the log of the service that is at fault.
    """

    def __init__(self, message: str, *, log: str = "") -> None:
        super().__init__(message)
        self.log = log


def not_running() -> StackError:
    """Return the error of a command that needs running services."""
    return StackError("it is not running; start it with: make up")
