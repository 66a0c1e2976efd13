"""How long the engine takes for a batch, by its size; and which size is worth filling.

Where larger batches hardly take longer, as on a GPU, full ones are best. Where each image takes
its time, as on a CPU, a batch of a few labels as many images per second, answers each of them
sooner, and leaves the others in the queue, where an idle worker finds them.
"""

import time
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Final

import structlog

log = structlog.get_logger()

OVERHEAD_S: Final = 0.0005
"""What a batch costs beside the engine, whatever its size: looking at its claims, publishing."""

TOLERANCE: Final = 0.1
"""How much of the best throughput is given up for a smaller batch, as a share; less than that
cannot be told from chance in so short a time."""

FEW: Final = 4
"""So many are taken where they are no worse than one. A model is measured while it has the machine
for itself; beside decoding, each batch brings the weights into the caches again, and has its turn
to wait for. At 32 calls in flight 1.03 to 1.08 times as many images per second, with each engine;
two bring most of that, and eight no more."""

FEW_S: Final = 0.1
"""Unless they take longer than that, seconds: such costs are no matter then, and the first image
would wait for the last."""

GROWTH: Final = 1.2
"""How many times as good as the best until now a size must be for a larger one to be tried. Less
may be chance, and a network that is built for four images is slower under load than two pairs."""

NOTHING_S: Final = 1e-4
"""A warm-up that is over sooner has not run a model, and says nothing about its batches."""

RUNS: Final = 3
"""Of each size, at least, after the first, which is slower; the fastest counts, as it was disturbed
least."""

RUNS_S: Final = 0.05
"""How long the runs of a size take, at least, unless there were `MOST_RUNS`."""

MOST_RUNS: Final = 10

LITTLE_MORE: Final = 1.5
"""A batch that takes less than so many times as long as one image is cheap."""

WEIGHT: Final = 0.1
"""Of the newest batch."""


class BatchCost:
    """Measured once while the engine warms up; each batch that is run says how slow it is now.

    Written by one thread at a time; others may read.
    """

    def __init__(self, max_batch_size: int) -> None:
        """Know nothing yet: full batches are then taken for the best.

        Args:
            max_batch_size: most images in a batch.
        """
        self._max_batch_size = max_batch_size
        self._measured: dict[int, float] = {}
        self._slowness = 1.0
        """How many times as long as when they were measured batches take now."""
        self._best_size = max_batch_size
        self._cheap_size = max_batch_size

    @property
    def best_size(self) -> int:
        """The smallest batch with nearly the best throughput, or `FEW`."""
        return self._best_size

    @property
    def cheap_size(self) -> int:
        """How many images hardly take longer than one, no more than `best_size`.

        An idle worker takes so many at once; others are better off with another idle worker.
        """
        return self._cheap_size

    def measure(
        self,
        warm_up: Callable[[Sequence[int]], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Warm an engine up with ever larger batches, as long as they are better.

        Args:
            warm_up: runs an empty batch of each size; see `worker.engine.Engine`.
            clock: seconds.
        """
        best = 0.0
        for size in _doubling(self._max_batch_size):
            warm_up([size])
            seconds = _timed(warm_up, size, clock)
            if seconds < NOTHING_S:
                self._measured.clear()
                warm_up([self._max_batch_size])
                return
            self._measured[size] = seconds
            rate = _rate(size, seconds)
            if rate < best * GROWTH:
                break  # larger ones are hardly better, either, and each delays the first job
            best = rate
        self._choose()
        log.info(
            "batches measured",
            best_size=self._best_size,
            milliseconds={size: round(s * 1000, 1) for size, s in self._measured.items()},
        )

    def note(self, size: int, seconds: float) -> None:
        """Learn how long a batch took."""
        expected = self._as_measured(size)
        # Which size is best stays: of those that do not come now nobody knows how long they take.
        if expected is not None:
            self._slowness += WEIGHT * (seconds / expected - self._slowness)

    def seconds(self, size: int) -> float | None:
        """Return how long a batch of this size should take; None if nobody knows."""
        seconds = self._as_measured(size)
        return None if seconds is None else seconds * self._slowness

    def saved_s(self) -> float | None:
        """Return what an image saves by joining a batch instead of the next; None: unknown.

        That long it is worth to wait for it, seconds.
        """
        one, two = self.seconds(1), self.seconds(2)
        if one is None or two is None:
            return None
        return max(0.0, 2 * one - two) + OVERHEAD_S

    def _as_measured(self, size: int) -> float | None:
        if not self._measured:
            return None
        smaller = max(takewhile(lambda known: known <= size, sorted(self._measured)), default=1)
        larger = min((known for known in self._measured if known >= size), default=None)
        if larger is None:
            return self._measured[smaller] * size / smaller
        if larger == smaller:
            return self._measured[size]
        share = (size - smaller) / (larger - smaller)
        return self._measured[smaller] + share * (self._measured[larger] - self._measured[smaller])

    def _choose(self) -> None:
        best = max(_rate(size, seconds) for size, seconds in self._measured.items())
        good = [
            size
            for size, seconds in self._measured.items()
            if _rate(size, seconds) >= best * (1 - TOLERANCE)
        ]
        self._best_size = max(min(good), self._few(good))
        alone = self._measured[1]
        self._cheap_size = max(
            size
            for size, seconds in self._measured.items()
            if size == 1 or (size <= self._best_size and seconds < alone * LITTLE_MORE)
        )

    def _few(self, good: Sequence[int]) -> int:
        """Return how many are taken because they are no worse; 1 if they are."""
        few = min(FEW, self._max_batch_size)
        # Engines put a batch that was not measured together from the largest that was.
        is_good = max(size for size in self._measured if size <= few) in good
        seconds = self._as_measured(few)
        return few if is_good and seconds is not None and seconds <= FEW_S else 1


def _doubling(most: int) -> list[int]:
    """Return 1, 2, 4 and so on, and `most`."""
    sizes = [1]
    while sizes[-1] * 2 < most:
        sizes.append(sizes[-1] * 2)
    return sizes if sizes[-1] == most else [*sizes, most]


def _timed(
    warm_up: Callable[[Sequence[int]], None], size: int, clock: Callable[[], float]
) -> float:
    """Return how long the fastest of several runs took."""
    seconds: list[float] = []
    while len(seconds) < RUNS or (sum(seconds) < RUNS_S and len(seconds) < MOST_RUNS):
        begun = clock()
        warm_up([size])
        seconds.append(clock() - begun)
    return min(seconds)


def _rate(size: int, seconds: float) -> float:
    """Return images per second."""
    return size / (seconds + OVERHEAD_S)
