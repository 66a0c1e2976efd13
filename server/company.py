"""How long a front-end waits for company: for jobs to send, and for replies to read, together."""

from typing import Final

FEW_CALLS: Final = 4
WINDOW_S: Final = 0.002
MANY_CALLS: Final = 16
MOST_WINDOWS: Final = 4
"""With more than a few calls in flight it waits so long, with many in proportion longer: fewer and
larger round trips cost a fraction. A lone caller would only wait, and one among many waits for
them anyway."""


def window_s(calls: int) -> float:
    """Return how long to wait while so many calls are in flight, seconds; 0: not at all."""
    if calls <= FEW_CALLS:
        return 0.0
    return WINDOW_S * min(max(1.0, calls / MANY_CALLS), MOST_WINDOWS)
