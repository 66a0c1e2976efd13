"""Runs a batch of any size on networks that are each built for one size.

An engine that is built for one size of batch runs it faster than one that is
open to all, and building takes longer than running: so a few sizes are built,
and every other batch is put together from those.
"""

from collections.abc import Callable, Sequence

import numpy as np
import structlog

from worker.engine import Float32Array, UInt8Array
from worker.engines.checks import check_scores, empty_images, summary
from worker.model_spec import ModelSpec

log = structlog.get_logger()

Run = Callable[[UInt8Array], Float32Array]


class FixedSizes:
    """An engine of networks for some sizes of batch.

    Args:
        spec: of the model.
        build: returns what runs batches of a size, and only that.
    """

    def __init__(self, spec: ModelSpec, build: Callable[[int], Run]) -> None:
        self._spec = spec
        self._build = build
        self._runs: dict[int, Run] = {}
        """By size, the largest first."""

        self._tried: set[int] = set()
        """Sizes that were built, or cannot be."""

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run an empty batch of each size, on a network that is built for it."""
        for size in batch_sizes:
            if size not in self._tried:
                self._add(size)
            self.predict(empty_images(self._spec, size))

    def predict(self, images: UInt8Array) -> Float32Array:
        """Score a batch; see `worker.engine.Engine`."""
        whole = self._runs.get(len(images))
        if whole is not None:
            return whole(images)
        if 1 not in self._runs:
            self.warm_up([1])
        parts = []
        done = 0
        while done < len(images):
            size = next(size for size in self._runs if size <= len(images) - done)
            parts.append(self._runs[size](images[done : done + size]))
            done += size
        return np.concatenate(parts)

    def _add(self, size: int) -> None:
        try:
            run = self._build(size)
            # What some libraries put off until the first batch, which is slower, belongs to it. And
            # a network may lose the size of the batch, where it was made for one image.
            check_scores(self._spec, run, empty_images(self._spec, size))
        except Exception as error:
            if size == 1:
                raise
            # A file may be made for one image at a time.
            log.warning("batches are put together", size=size, reason=summary(error))
        else:
            self._runs = dict(sorted({**self._runs, size: run}.items(), reverse=True))
        self._tried.add(size)
