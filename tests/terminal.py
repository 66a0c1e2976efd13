"""A program on a terminal, and what a person sees there."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from tests.processes import ROOT

SIZE: Final = (40, 120)
"""Lines, and characters of one."""

HOME: Final = "\x1b[H"
"""Sends the cursor to the first line: there each picture of a live view begins."""

_COMMANDS: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """The screen of a program that draws one picture after the other."""

    def __init__(self, reader: int) -> None:
        self._reader = reader
        self._text = ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def screen(self) -> str:
        """The newest picture that is there from the first to the last line; empty: none yet."""
        for picture in reversed(self._text.split(HOME)[1:]):
            if picture.count("\n") == SIZE[0] - 1:
                return _COMMANDS.sub("", picture)
        return ""

    def join(self) -> str:
        """Wait until the program has ended; return all it has written."""
        self._thread.join()
        return self._text

    def _read(self) -> None:
        try:
            while piece := os.read(self._reader, 65536):
                self._text += piece.decode(errors="replace")
        except OSError:
            pass  # how Linux says that nobody is left to write


@contextmanager
def on_terminal(
    arguments: Sequence[str], kind: str = "xterm-256color"
) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    """Run a program of ours on a terminal while inside; then it gets Ctrl-C.

    Args:
        arguments: of the Python interpreter.
        kind: of the terminal.
    """
    reader, writer = pty.openpty()
    termios.tcsetwinsize(writer, SIZE)
    environment = {**os.environ, "TERM": kind}
    # They would say that the terminal has another size.
    for name in ("COLUMNS", "LINES"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdin=writer,
        stdout=writer,
        stderr=writer,
        start_new_session=True,
    )
    os.close(writer)
    terminal = Terminal(reader)
    try:
        yield terminal, process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()
            os.close(reader)
