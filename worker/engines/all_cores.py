"""Runs one image on all cores while no other worker of the machine computes."""

from collections.abc import Callable, Sequence

import structlog

from worker.computing import Computing
from worker.engine import Engine, Float32Array, UInt8Array

log = structlog.get_logger()


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
