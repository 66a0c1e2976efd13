"""How long the caller of one call will wait."""

import time
from typing import Any, Final

import grpc

from server.settings import ServerSettings

# A timeout travels with three significant digits at most, rounded up (50.01 s as
# 50100 ms, 100.1 s as 101 s), so a caller gives up a little before we would think.
# Answering at that moment would be too late to be heard.
ROUNDING_SHARE: Final = 0.01
"""Most that gRPC adds to a timeout of 1 s or more, as a share of it."""


MARGIN_S: Final = 0.020
MARGIN_SHARE: Final = 0.10
"""The front-end answers this much before the caller's deadline, whichever is
less, so that the caller sees our reason and not its own timer."""


def with_margin(remaining_s: float) -> float:
    """Return how much of a caller's remaining time there is to find the answer, seconds."""
    return remaining_s - min(MARGIN_S, MARGIN_SHARE * remaining_s)


class Deadline:
    """The deadline of one call, which all images of a stream share."""

    def __init__(
        self, settings: ServerSettings, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        self._settings = settings
        # None is what a call without a deadline has, whatever the stubs say.
        remaining_s: float | None = context.time_remaining()
        self._ends_s = (
            None if remaining_s is None else time.monotonic() + remaining_s * (1 - ROUNDING_SHARE)
        )

    def remaining_s(self) -> float:
        """Return how long the caller will surely wait for one image, seconds.

        That is the default if the call has no deadline, and never more than the
        maximum, counted from now.
        """
        remaining_s = (
            self._settings.default_deadline_s
            if self._ends_s is None
            else max(0.0, self._ends_s - time.monotonic())
        )
        return min(remaining_s, self._settings.max_deadline_s)
