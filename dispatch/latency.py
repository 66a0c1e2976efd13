"""How long images took, in few numbers that can be added up over processes.

Each bucket is a quarter of an octave wide, so what is read from them is right to
within 10 %.
"""

import bisect
from collections.abc import Sequence
from typing import Final

FIRST_S: Final = 0.0005
"""Upper edge of the first bucket, seconds."""

EDGES_S: Final = tuple(FIRST_S * 2 ** (step / 4) for step in range(78))
"""Upper edges of the buckets, seconds, up to five minutes; one more bucket has the rest."""


def bucket_of(seconds: float) -> int:
    """Return the index of the bucket that a duration belongs to."""
    return bisect.bisect_left(EDGES_S, seconds)


def quantile_s(counts: Sequence[int], share: float) -> float:
    """Return what `share` of the images stayed below, seconds.

    Args:
        counts: how many images are in each bucket; buckets that are missing are empty.
        share: in (0, 1].

    Raises:
        ValueError: there are no images.
    """
    if not any(counts):
        raise ValueError("there are no images")
    wanted = share * sum(counts)
    below = 0
    for index, count in enumerate(counts):
        if count and below + count >= wanted:
            lower = EDGES_S[index - 1] if index else 0.0
            upper = EDGES_S[index] if index < len(EDGES_S) else lower
            return lower + (upper - lower) * (wanted - below) / count
        below += count
    raise AssertionError("the counts were not what they summed up to")
