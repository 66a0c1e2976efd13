"""When a caller who was refused should come again."""

from typing import Final

MOST_RETRY_S: Final = 30.0
LEAST_RETRY_S: Final = 0.05
UNKNOWN_S: Final = 1.0


def room_in_s(queued: int, drain_per_s: float | None) -> float:
    """Estimate when a tenth of a queue will have drained, seconds.

    Args:
        queued: how many wait.
        drain_per_s: how many end per second, over the last seconds; None: not measured.
    """
    if drain_per_s is None:
        return UNKNOWN_S
    return min(MOST_RETRY_S, max(LEAST_RETRY_S, queued / 10 / drain_per_s))
