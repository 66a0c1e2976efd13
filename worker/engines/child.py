"""A process that does one thing for a worker, is told what on standard input, and ends with it."""

import os
import sys
import threading
from collections.abc import Iterator
from queue import SimpleQueue


def command(module: str) -> list[str]:
    """Return what runs a module of ours in a process of its own.

    Where this process does not look for modules in the folder it was started in, the other one must
    not, either: `despacho tune` is started anywhere, also beside a `worker.py`.
    """
    return [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", module]


def orders() -> Iterator[str]:
    """Return what the parent says, line by line.

    From the first one on, this process ends as soon as the parent does, or closes the pipe, even
    while it does something else.
    """
    said: SimpleQueue[str] = SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            said.put(line)
        os._exit(1)

    threading.Thread(target=listen, name="parent", daemon=True).start()
    while True:
        yield said.get()
