"""Tells of something that is away, and that it is back: once each, however often it is tried."""

import time
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class Absence:
    """What one loop has to say of the broker; for one thread or task."""

    def __init__(self, suffers: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """The broker is there, as far as is known.

        Args:
            suffers: what is not done meanwhile.
            clock: seconds.
        """
        self._suffers = suffers
        self._clock = clock
        self._since: float | None = None

    def noticed(self, error: Exception, **fields: object) -> None:
        """Say that the broker is away, unless that was said.

        Args:
            error: how one knows.
            fields: more for the line.
        """
        if self._since is None:
            self._since = self._clock()
            cause = str(error.__cause__ or "")
            log.warning(
                "broker unavailable", suffers=self._suffers, error=str(error), cause=cause, **fields
            )

    def over(self) -> None:
        """Say that it is back, if it was away."""
        if self._since is not None:
            away_s = round(self._clock() - self._since, 1)
            self._since = None
            log.info("broker available again", suffers=self._suffers, away_s=away_s)
