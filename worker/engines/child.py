"""A process that does one thing for a worker, is told what on standard input, and ends with it."""

import os
import sys
import threading


def command(module: str) -> list[str]:
    """Return what runs a module of ours in a process of its own.

    Where this process does not look for modules in the folder it was started in, the other one must
    not, either: `despacho tune` is started anywhere, also beside a `worker.py`.
    """
    return [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", module]


def next_line() -> str:
    """Return what the parent says next; end this process if the parent is gone."""
    line = sys.stdin.readline()
    if not line:
        os._exit(1)
    return line


def end_with_parent() -> None:
    """From now on, end this process as soon as the parent ends or closes the pipe."""
    threading.Thread(target=next_line, name="parent", daemon=True).start()
