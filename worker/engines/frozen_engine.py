"""Runs a model that was frozen and kept, in TensorFlow's C library."""

from collections.abc import Sequence
from pathlib import Path

from worker.engine import Float32Array, UInt8Array
from worker.engines.checks import check_output, empty_images
from worker.engines.conversion import WHY_NOT
from worker.engines.tensorflow_library import GraphSession
from worker.model_spec import ModelSpec


class FrozenEngine:
    """One model as `convert.py` has written it: nothing is left to be done around it.

    Args:
        spec: what the model should be.
        path: the graph.
        threads: of one inference; 0: one for each core.

    Raises:
        ModelError: the model is not what `spec` says.
        ValueError: it cannot be frozen.
        RuntimeError, OSError, AttributeError: see `GraphSession`.
    """

    def __init__(self, spec: ModelSpec, path: Path, *, threads: int) -> None:
        self._spec = spec
        why_not = path.with_name(WHY_NOT)
        if why_not.exists():
            raise ValueError(f"it cannot be frozen: {why_not.read_text()}")
        self._session = GraphSession(path.read_bytes(), threads=threads)
        check_output(spec, self.predict)

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run an empty batch of each size: kernels choose their algorithms by it."""
        for size in batch_sizes:
            self.predict(empty_images(self._spec, size))

    def predict(self, images: UInt8Array) -> Float32Array:
        """Score a batch; see `worker.engine.Engine`."""
        return self._session.run(images)
