"""Arithmetic of measurements."""

import statistics
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple


class Spread(NamedTuple):
    """What several rounds gave."""

    least: float
    median: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Return the least, the median and the greatest of at least one value."""
    return Spread(min(values), statistics.median(values), max(values))


def shown(values: Sequence[float]) -> str:
    """Return `median [least - most]` of at least one value."""
    least, median, most = map(significant, spread(values))
    return f"{median} [{least} - {most}]"


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the value that a share of all does not exceed (nearest rank).

    Args:
        ascending: at least one value, sorted.
        share: above 0, at most 1; 0.99 for p99.
    """
    return ascending[ceil(len(ascending) * share) - 1]


def growth(samples: Sequence[float]) -> float:
    """Return by what factor a series has grown, once it had settled.

    The median of its last tenth by that of its third: what fills up in the beginning (caches,
    pools) is no growth.

    Args:
        samples: at least 20, equally far apart.
    """
    tenth = len(samples) // 10
    return statistics.median(samples[-tenth:]) / statistics.median(samples[2 * tenth : 3 * tenth])


def significant(value: float, digits: int = 3) -> str:
    """Return a number as people write it: 4,523; 67.2; 0.0312."""
    if value == 0:
        return "0"
    places = digits
    threshold = 1.0
    while places > 0 and abs(value) >= threshold:
        places -= 1
        threshold *= 10
    if abs(value) < 1:
        # Zeros behind the point are no digits that say anything.
        while places < 6 and round(abs(value), places) < 10 ** (digits - 1 - places):
            places += 1
    return f"{value:,.{places}f}"
