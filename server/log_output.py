"""Where the log lines of a front-end go: to standard error, many in one write.

A write gives other threads their turn, so one for each call would cost more than the
line itself.
"""

import asyncio
import sys
from collections.abc import Iterable, Iterator
from select import PIPE_BUF
from typing import Final, TextIO

from telemetry.log_stream import ForgivingStream

WAIT_S: Final = 0.02
"""Longest that a line waits for others, seconds; so much is lost if the process is killed."""


class BatchingLogger:
    """Takes rendered lines; structlog calls the method that is named for the level.

    No method fails: a line that cannot be written is lost.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = ForgivingStream(stream)
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def info(self, line: str) -> None:
        """Write a line soon."""
        self._lines.append(line)
        if self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(WAIT_S, self.flush)
            except RuntimeError:
                self.flush()  # no loop runs: at the start, at the end, or in another thread

    debug = info

    def warning(self, line: str) -> None:
        """Write a line now, after those before it: a problem may be the last word."""
        self._lines.append(line)
        self.flush()

    error = critical = warning

    def flush(self) -> None:
        """Write what waits."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        lines, self._lines = self._lines, []
        for block in blocks(lines):
            self._stream.write(block)
            self._stream.flush()


def blocks(lines: Iterable[str]) -> Iterator[str]:
    """Join lines to blocks that are written whole, whoever else writes to the same pipe."""
    block: list[str] = []
    size = 0
    for line in lines:
        line_size = len(line) + 1
        if block and size + line_size > PIPE_BUF:
            yield "".join(block)
            block, size = [], 0
        block += (line, "\n")
        size += line_size
    if block:
        yield "".join(block)


OUTPUT: Final = BatchingLogger(sys.stderr)
