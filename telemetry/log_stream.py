"""Where log lines go: a stream that may break, and takes nothing along when it does."""

from contextlib import suppress
from typing import TextIO


class ForgivingStream:
    """Writes to another stream; what that does not take is lost, and nobody fails for it.

    Whoever reads standard error may have ended, and the disk behind it may be full. A call that
    was answered, and a job that is in hand, are worth more than the line about them. Once there
    is somebody again, or room, the lines come again.
    """

    def __init__(self, stream: TextIO) -> None:
        """Write nothing yet.

        Args:
            stream: takes the lines.
        """
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; return its length, as files do."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with suppress(OSError):
            self._stream.flush()
