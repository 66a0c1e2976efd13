"""Reads the end of a log."""

from collections import deque
from pathlib import Path


def last_lines(path: Path, count: int, *, after_bytes: int = 0) -> str:
    """Return the last lines, with the file's name on top; empty if there is none.

    Args:
        path: the log.
        count: how many.
        after_bytes: leave out what stands before, unless the file is shorter: then
            it has been rotated since.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size >= after_bytes:
                file.seek(after_bytes)
            lines = [line.decode(errors="replace") for line in deque(file, maxlen=count)]
    except OSError:
        return ""
    return f"--- {path.name}\n{''.join(lines)}---" if lines else ""
