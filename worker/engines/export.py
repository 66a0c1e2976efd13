"""Saves a Keras model so that it loads fast: as a SavedModel without variables."""

from pathlib import Path
from typing import Any

from worker.engines.runtime import convert_variables_to_constants_v2, tf


def export_frozen(model: Any, folder: Path) -> None:
    """Write a SavedModel whose weights are constants of its graph.

    Loads in a third of the time of the `.keras` file, since no layer is built.

    Args:
        model: a Keras model with one input and one output.
        folder: must not be there yet.

    Raises:
        OSError: it cannot be written.
    """
    shape = (None, *model.inputs[0].shape[1:])

    @tf.function(  # type: ignore[untyped-decorator]
        # Plain tensor code: nothing to translate, and the translator writes files to /tmp.
        autograph=False,
        input_signature=[tf.TensorSpec(shape, tf.float32, name="pixels")],
    )
    def call(pixels: Any) -> Any:
        return model(pixels, training=False)

    frozen = convert_variables_to_constants_v2(call.get_concrete_function())
    module = tf.Module()
    module.call = frozen
    try:
        tf.saved_model.save(module, str(folder), signatures=frozen)
    except tf.errors.OpError as error:
        # What TensorFlow makes of a full disk, for example.
        raise OSError(error.message) from error
