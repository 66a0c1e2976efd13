"""A process that does one thing for a worker, is told what on standard input, and ends with it."""

import os
import sys
import threading


def next_line() -> str:
    """Return what the parent says next; end this process if the parent is gone."""
    line = sys.stdin.readline()
    if not line:
        os._exit(1)
    return line


def end_with_parent() -> None:
    """From now on, end this process as soon as the parent ends or closes the pipe."""
    threading.Thread(target=next_line, name="parent", daemon=True).start()
