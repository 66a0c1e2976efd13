"""A file that tells probes that jobs are taken here, as a worker has no port to ask at."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

log = structlog.get_logger()


class ReadyFile:
    """There while any process of a worker takes jobs.

    Args:
        path: where; empty: there is none.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None

    def make(self) -> None:
        """Say that jobs are taken."""
        if self._path is None:
            return
        try:
            self._path.touch()
        except OSError as error:
            # Whoever probes will see that it is missing; jobs can be taken all the same.
            log.error("the ready file cannot be made", error=str(error))  # noqa: TRY400 - the error says it all

    def remove(self) -> None:
        """Say that nobody takes jobs."""
        if self._path is None:
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.error("the ready file cannot be removed", error=str(error))  # noqa: TRY400 - the error says it all

    @contextmanager
    def gone_before_and_after(self) -> Iterator[None]:
        """Remove what a killed process has left, and at the end what this one has made.

        For the one process that outlives the others, if there are several.
        """
        self.remove()
        try:
            yield
        finally:
            self.remove()
