"""Runs one image on all cores while no other worker of the machine computes."""

import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from worker.computing import Computing
from worker.engine import Engine, Float32Array, UInt8Array

log = structlog.get_logger()

RUNS: Final = 4
"""Images that are alone and run with few threads, and as many with all, before one way is chosen;
the fastest run counts, as it was disturbed least."""

WORTH: Final = 0.9
"""Of the time that one image takes with few threads: with more than this, many are no gain."""


class AllCores:
    """An engine with few threads and, for an image that is alone on the machine, one with many.

    The first such images find out whether that is quicker. While a worker starts, nobody could: the
    other processes start at the same time.

    Args:
        engine: for everything else.
        wide: of the same model, with more threads; None: there is none, but others may have one
            and should know when this engine computes.
        computing: tells whether others compute.
        clock: seconds.
    """

    def __init__(
        self,
        engine: Engine,
        wide: Engine | None,
        computing: Computing,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._engine = engine
        self._wide = wide
        self._computing = computing
        self._clock = clock
        self._few_s: list[float] = []
        self._many_s: list[float] = []

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run an empty batch of each size with few threads: that is what there is under load."""
        self._engine.warm_up(batch_sizes)

    def predict(self, images: UInt8Array) -> Float32Array:
        """Score a batch; see `worker.engine.Engine`."""
        is_alone = self._computing.begin()
        try:
            if is_alone and self._wide is not None and len(images) == 1:
                return self._alone(self._wide, images)
            return self._engine.predict(images)
        finally:
            self._computing.end()

    def _alone(self, wide: Engine, images: UInt8Array) -> Float32Array:
        if len(self._few_s) == RUNS:
            return wide.predict(images)
        is_wide = len(self._many_s) == len(self._few_s)
        began = self._clock()
        scores = (wide if is_wide else self._engine).predict(images)
        taken_s = self._clock() - began
        # Under load one finds itself alone between two batches of another, and then is not.
        if self._computing.is_alone():
            (self._many_s if is_wide else self._few_s).append(taken_s)
            if len(self._few_s) == RUNS:
                self._choose()
        return scores

    def _choose(self) -> None:
        few_s, many_s = min(self._few_s), min(self._many_s)
        is_used = many_s <= WORTH * few_s
        if not is_used:
            self._wide = None
        log.info(
            "one image on all cores",
            is_used=is_used,
            milliseconds=round(many_s * 1000, 1),
            with_few_threads=round(few_s * 1000, 1),
        )


def wide_engine(make: Callable[[], Engine]) -> Engine | None:
    """Return an engine with many threads, warm; None if it cannot be had.

    Args:
        make: loads it.
    """
    try:
        wide = make()
        wide.warm_up([1])
    except Exception:
        log.exception("one image does not get all cores")
        return None
    return wide
