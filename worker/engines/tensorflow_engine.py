"""Runs a Keras model or a SavedModel, as one frozen graph from bytes to probabilities."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import structlog

from worker.engine import Float32Array, UInt8Array
from worker.engines.model_file import Network
from worker.engines.runtime import convert_variables_to_constants_v2, tf
from worker.model_spec import ModelError, ModelSpec

log = structlog.get_logger()

PROBE_SIZE: Final = 2
"""Images in the batch that is tried while loading; not 1, so that a model which only takes
batches of one shows."""

ROUNDING: Final = 1e-3
"""How far beyond 0 to 1 a probability may be, through rounding."""


class TensorflowEngine:
    """One model, scaled, converted and frozen.

    Images travel as bytes, a quarter of the size of floats; they are scaled
    inside the graph.

    Args:
        spec: what the model should be.
        network: the model.

    Raises:
        ModelError: the network is not what `spec` says.
    """

    def __init__(self, spec: ModelSpec, network: Network) -> None:
        self._spec = spec
        self._check_input(network)
        try:
            graph = _graph(spec, network).get_concrete_function()
        except Exception as error:
            # Tracing runs code of the model: anything can come out of it.
            raise ModelError(f"{spec.name}: does not take images: {_summary(error)}") from error
        # A function without variables of its own still needs the model's objects to live.
        self._owner = network.owner
        self._run = _frozen(graph)
        self._check_output()

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run an empty batch of each size: kernels choose their algorithms by it."""
        for size in batch_sizes:
            self.predict(self._empty(size))

    def predict(self, images: UInt8Array) -> Float32Array:
        """Score a batch; see `worker.engine.Engine`."""
        scores: Float32Array = self._run(tf.constant(images, tf.uint8)).numpy()
        return scores

    def _empty(self, size: int) -> UInt8Array:
        return np.zeros((size, self._spec.input.height, self._spec.input.width, 3), np.uint8)

    def _check_input(self, network: Network) -> None:
        """Refuse a model whose own input is of another size."""
        spec = self._spec
        ours = (None, spec.input.height, spec.input.width, 3)
        theirs = network.input_shape or ours
        if len(theirs) != len(ours) or any(
            size is not None and wanted is not None and size != wanted
            for size, wanted in zip(theirs, ours, strict=False)
        ):
            raise ModelError(
                f"{spec.name}: the model takes {_shape(theirs)}, and its input is described as"
                f" {_shape(ours)} (batch, height, width, channels)"
            )

    def _check_output(self) -> None:
        """Refuse a model that does not return one probability for each label."""
        spec = self._spec
        try:
            scores = self.predict(self._empty(PROBE_SIZE))
        except Exception as error:
            raise ModelError(
                f"{spec.name}: fails on a batch of {PROBE_SIZE} images: {_summary(error)}"
            ) from error
        wanted = (PROBE_SIZE, len(spec.labels))
        if scores.shape != wanted:
            raise ModelError(
                f"{spec.name}: returns {_shape(scores.shape)} for {PROBE_SIZE} images;"
                f" {len(spec.labels)} labels need {_shape(wanted)}"
            )
        if not (np.all(scores >= -ROUNDING) and np.all(scores <= 1 + ROUNDING)):
            raise ModelError(
                f"{spec.name}: returns scores outside 0 to 1; if they are logits, set"
                " `softmax = true` below [output]"
            )


def _graph(spec: ModelSpec, network: Network) -> Any:
    """Return the function from bytes to probabilities."""
    mean, scale = spec.pixels.mean, spec.pixels.scale
    is_scaled = any(mean) or any(factor != 1 for factor in scale)

    # The size of the batch stays open, so that no batch is traced again.
    @tf.function(  # type: ignore[untyped-decorator]
        # Plain tensor code: nothing to translate, and the translator writes files to /tmp.
        autograph=False,
        input_signature=[tf.TensorSpec((None, spec.input.height, spec.input.width, 3), tf.uint8)],
    )
    def scores(images: Any) -> Any:
        pixels = images
        if is_scaled:
            pixels = (tf.cast(pixels, tf.float32) - tf.constant(mean)) / tf.constant(scale)
        if spec.pixels.order == "bgr":
            pixels = tf.reverse(pixels, axis=[-1])
        outputs = tf.cast(network.call(tf.cast(pixels, network.input_dtype)), tf.float32)
        return tf.nn.softmax(outputs) if spec.softmax else outputs

    return scores


def _frozen(graph: Any) -> Callable[[Any], Any]:
    """Turn variables into constants, if that works: the graph is then optimised as a whole.

    Measured: up to 1.4 times as many images per second.
    """
    if not graph.captured_inputs:
        return graph  # type: ignore[no-any-return] # it was frozen when it was saved
    try:
        frozen = convert_variables_to_constants_v2(graph)
    except Exception as error:  # noqa: BLE001 - any model may have operations that cannot be frozen
        reason = _summary(error)
    else:
        if len(frozen.inputs) == 1:
            return lambda images: frozen(images)[0]
        # A look-up table, for example, stays outside and would have to be passed in.
        reason = "it has state that is not a variable"
    log.warning("model not frozen; it runs slower", reason=reason)
    return graph  # type: ignore[no-any-return]


def _shape(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"


def _summary(error: Exception) -> str:
    """Return the first line of what a library says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
