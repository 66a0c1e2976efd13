"""Runs a Keras model or a SavedModel, as one frozen graph from bytes to probabilities."""

from collections.abc import Sequence

from worker.engine import Float32Array, UInt8Array
from worker.engines.checks import (
    check_input,
    check_output,
    check_repeats,
    empty_images,
)
from worker.engines.model_file import Network
from worker.engines.runtime import tf
from worker.engines.scoring_graph import has_16_bit_floats, runnable, scoring_graph
from worker.model_spec import ModelSpec


class TensorflowEngine:
    """One model, scaled, converted and frozen.

    Args:
        spec: what the model should be.
        network: the model.

    Raises:
        ModelError: the network is not what `spec` says.
    """

    def __init__(self, spec: ModelSpec, network: Network) -> None:
        self._spec = spec
        check_input(spec, network.input_shape)
        # A function without variables of its own still needs the model's objects to live.
        self._owner = network.owner
        graph = scoring_graph(spec, network)
        self._run = runnable(graph)
        check_output(spec, self.predict)
        check_repeats(spec, self.predict, has_16_bit_floats=has_16_bit_floats(graph))

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run an empty batch of each size: kernels choose their algorithms by it."""
        for size in batch_sizes:
            self.predict(empty_images(self._spec, size))

    def predict(self, images: UInt8Array) -> Float32Array:
        """Score a batch; see `worker.engine.Engine`."""
        scores: Float32Array = self._run(tf.constant(images, tf.uint8)).numpy()
        return scores
