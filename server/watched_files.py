"""Notices that files were replaced or rewritten."""

from collections.abc import Sequence
from pathlib import Path

_State = tuple[int, int, int] | None


class WatchedFiles:
    """Some files that belong together."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._seen: list[_State] | None = None

    def have_changed(self) -> bool:
        """Say whether any is another one than at the last question, or the first time."""
        seen = [_state(path) for path in self._paths]
        has_changed = seen != self._seen
        self._seen = seen
        return has_changed


def _state(path: Path) -> _State:
    try:
        # Of the file itself, where the path is a link, as in a mounted secret.
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
