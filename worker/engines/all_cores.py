"""Runs one image on all cores while no other worker of the machine computes."""

from collections.abc import Sequence

from worker.computing import Computing
from worker.engine import Engine, Float32Array, UInt8Array


class AllCores:
    """An engine with few threads, and one with many for an image that is alone on the machine.

    Args:
        engine: for everything else.
        wide: of the same model, with more threads.
        computing: tells whether others compute.
    """

    def __init__(self, engine: Engine, wide: Engine, computing: Computing) -> None:
        self._engine = engine
        self._wide = wide
        self._computing = computing
        wide.warm_up([1])

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run an empty batch of each size with few threads: that is what there is under load."""
        self._engine.warm_up(batch_sizes)

    def predict(self, images: UInt8Array) -> Float32Array:
        """Score a batch; see `worker.engine.Engine`."""
        is_alone = self._computing.begin()
        try:
            engine = self._wide if is_alone and len(images) == 1 else self._engine
            return engine.predict(images)
        finally:
            self._computing.end()
