"""Reads the end of a log."""

from collections import deque
from pathlib import Path


def last_lines(path: Path, count: int) -> str:
    """Return the last lines, with the file's name on top; empty if there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = deque(file, maxlen=count)
    except OSError:
        return ""
    return f"--- {path.name}\n{''.join(lines)}---" if lines else ""
