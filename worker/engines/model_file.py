"""Reads a `.keras` file or a SavedModel into one callable from images to scores."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from worker.engines.checks import summary
from worker.engines.runtime import keras, tf
from worker.model_spec import ModelError

SIGNATURE: Final = "serving_default"


@dataclass(frozen=True)
class Network:
    """A model in memory, whatever file it was in."""

    call: Callable[[Any], Any]
    """From scaled pixels (batch, height, width, 3) to scores (batch, classes)."""

    input_dtype: Any
    """Type of the pixels that it takes."""

    input_shape: tuple[int | None, ...] | None
    """Its own idea of the input's shape, with the batch; None if it has none."""

    owner: Any
    """What has to live as long as `call` is used."""


def read_model_file(path: Path) -> Network:
    """Load a model.

    A SavedModel is a program and does as it pleases: serve only models that you trust. A
    `.keras` file is read in Keras' safe mode, which refuses code.

    Args:
        path: a `.keras` file, or the folder of a SavedModel.

    Raises:
        ModelError: it cannot be read, or does not take exactly one image input.
    """
    try:
        if path.is_dir():
            return _saved_model(path)
        return of_keras(keras.saving.load_model(path, compile=False), path.name)
    except ModelError:
        raise
    except Exception as error:
        # Of a file that is damaged or half there both libraries raise whatever they stumble over.
        raise ModelError(f"{path}: cannot be loaded: {summary(error)}") from error


def of_keras(model: Any, name: str) -> Network:
    """Return a Keras model as a network.

    Args:
        model: a `keras.Model` that was built.
        name: what messages call it.

    Raises:
        ModelError: it has more inputs or outputs than one.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"{name}: has {len(model.inputs)} inputs and {len(model.outputs)} outputs;"
            " one of each is needed"
        )
    (model_input,) = model.inputs
    return Network(
        call=lambda pixels: model(pixels, training=False),
        input_dtype=tf.as_dtype(model_input.dtype),
        input_shape=tuple(model_input.shape),
        owner=model,
    )


def _saved_model(path: Path) -> Network:
    loaded = tf.saved_model.load(str(path))
    function = loaded.signatures.get(SIGNATURE)
    if function is None:
        if not callable(loaded):
            raise ModelError(f"{path}: has no signature {SIGNATURE!r} and cannot be called")
        dtype = _called_with(loaded.__call__)
        return Network(call=loaded, input_dtype=dtype, input_shape=None, owner=loaded)
    inputs = function.structured_input_signature[1]
    outputs = function.structured_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"{path}: its {SIGNATURE!r} takes {sorted(inputs)} and returns {sorted(outputs)};"
            " one of each is needed"
        )
    ((input_name, spec),) = inputs.items()
    (output_name,) = outputs
    return Network(
        call=lambda pixels: function(**{input_name: pixels})[output_name],
        input_dtype=spec.dtype,
        input_shape=None if spec.shape.rank is None else tuple(spec.shape),
        owner=loaded,
    )


def _called_with(function: Any) -> Any:
    """Return the type of what a function of a SavedModel was traced with; float32 if of several."""
    dtypes = {
        spec.dtype
        # One that was saved as it was traced stands for itself.
        for traced in getattr(function, "concrete_functions", [function])
        for spec in tf.nest.flatten(traced.structured_input_signature)
        if isinstance(spec, tf.TensorSpec)
    }
    return dtypes.pop() if len(dtypes) == 1 else tf.float32
