"""Tells of something that is away, and that it is back: once each, however often it is tried."""

import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class Absence:
    """What one part has to say of the broker; for any thread."""

    def __init__(self, suffers: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """The broker is there, as far as is known.

        Args:
            suffers: what is not done meanwhile.
            clock: seconds.
        """
        self._suffers = suffers
        self._clock = clock
        self._lock = threading.Lock()
        self._since: float | None = None

    def noticed(self, error: Exception, **fields: object) -> None:
        """Say that the broker is away, unless that was said.

        Args:
            error: how one knows.
            fields: more for the line.
        """
        now = self._clock()
        with self._lock:
            is_new = self._since is None
            if is_new:
                self._since = now
        if is_new:
            cause = str(error.__cause__ or "")
            log.warning(
                "broker unavailable", suffers=self._suffers, error=str(error), cause=cause, **fields
            )

    def over(self) -> None:
        """Say that it is back, if it was away."""
        if self._since is None:
            return
        with self._lock:
            since, self._since = self._since, None
        if since is not None:
            away_s = round(self._clock() - since, 1)
            log.info("broker available again", suffers=self._suffers, away_s=away_s)
