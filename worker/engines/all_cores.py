"""Runs one image on all cores while no other worker of the machine computes."""

import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from worker.computing import Computing
from worker.engine import Engine, Float32Array, UInt8Array

log = structlog.get_logger()

RUNS: Final = 3
"""Of one image, to see how long it takes; the fastest counts, as it was disturbed least."""

WORTH: Final = 0.9
"""Of the time that one image takes with few threads: with more than this, many are no gain."""


class AllCores:
    """An engine with few threads and, for an image that is alone on the machine, one with many.

    Args:
        engine: for everything else.
        wide: of the same model, with more threads; None: there is none, but others may have one
            and should know when this engine computes.
        computing: tells whether others compute.
    """

    def __init__(self, engine: Engine, wide: Engine | None, computing: Computing) -> None:
        self._engine = engine
        self._wide = wide
        self._computing = computing

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run an empty batch of each size with few threads: that is what there is under load."""
        self._engine.warm_up(batch_sizes)

    def predict(self, images: UInt8Array) -> Float32Array:
        """Score a batch; see `worker.engine.Engine`."""
        engine = self._engine
        if self._computing.begin() and self._wide is not None and len(images) == 1:
            engine = self._wide
        try:
            return engine.predict(images)
        finally:
            self._computing.end()


def if_quicker(engine: Engine, make_wide: Callable[[], Engine], image: UInt8Array) -> Engine | None:
    """Return an engine with many threads; None if it runs one image hardly quicker, or not at all.

    Args:
        engine: with few threads.
        make_wide: loads it.
        image: a batch of one.
    """
    try:
        wide = make_wide()
        few_s, many_s = (_quickest_s(each, image) for each in (engine, wide))
    except Exception:
        log.exception("one image does not get all cores")
        return None
    log.info(
        "one image on all cores",
        is_used=many_s <= WORTH * few_s,
        milliseconds=round(many_s * 1000, 1),
        with_few_threads=round(few_s * 1000, 1),
    )
    return wide if many_s <= WORTH * few_s else None


def _quickest_s(engine: Engine, image: UInt8Array) -> float:
    engine.predict(image)  # the first is slower
    taken_s = []
    for _ in range(RUNS):
        began = time.perf_counter()
        engine.predict(image)
        taken_s.append(time.perf_counter() - began)
    return min(taken_s)
