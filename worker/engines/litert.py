"""Runs a `.tflite` file with LiteRT, whose kernels for CPUs are those of XNNPACK."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from worker.engine import Float32Array, UInt8Array
from worker.engines.around_model import dequantised, quantised, scaled, softmax
from worker.engines.checks import check_input, check_runs, no_scaling
from worker.engines.engine_file import EngineFile
from worker.engines.fixed_sizes import FixedSizes, Run
from worker.engines.quiet_import import quiet_import
from worker.machine import usable_cores
from worker.model_spec import ModelError, ModelSpec

LEAST_IN_COMMON: Final = 1 / 4
"""Of all numbers that a quantised input stands for or [pixels] makes, the part that is in both. 16
bits stand for as much below 0 as above, so for pixels from 0 to 1 it is a half; and the images that
a model was quantised with need not have been both black and white."""

_RANK: Final = 4


class LitertEngine(FixedSizes):
    """One model, with an interpreter for each size of batch that was asked for.

    Args:
        spec: what the model should be; its rule for pixels and softmax are done outside the file.
        file: the `.tflite` file; quantised inputs and outputs are converted.
        threads: of one inference; 0: one for each core.

    Raises:
        ModelError: the file cannot be loaded, or is not what `spec` says.
    """

    def __init__(self, spec: ModelSpec, file: EngineFile, *, threads: int) -> None:
        super().__init__(spec, self._interpreter)
        self._file = file
        self._threads = threads or usable_cores()
        check_runs(self, spec, file.path)

    def _interpreter(self, size: int) -> Run:
        path, content = self._file.path, self._file.content
        interpreter = Interpreter(
            model_path=str(path) if content is None else None,
            model_content=content,  # which it does not copy
            num_threads=self._threads,
        )
        model_input = _only(interpreter.get_input_details(), "inputs", path)
        model_output = _only(interpreter.get_output_details(), "outputs", path)
        shape = tuple(int(side) for side in model_input["shape"])
        signature = model_input.get("shape_signature", shape)
        check_input(self._spec, [None, *(_side(side) for side in signature[1:])])
        if len(shape) == _RANK:
            wanted = [size, self._spec.input.height, self._spec.input.width, 3]
            interpreter.resize_tensor_input(model_input["index"], wanted)
        with quiet_import():
            interpreter.allocate_tensors()
        prepare = _prepare(self._spec, model_input, path)
        finish = _finish(self._spec, model_output)
        input_index, output_index = model_input["index"], model_output["index"]

        def run(images: UInt8Array) -> Float32Array:
            interpreter.set_tensor(input_index, prepare(images))
            interpreter.invoke()
            return finish(interpreter.get_tensor(output_index))

        return run


def _side(size: int) -> int | None:
    """Return a size of a signature, in which -1 stands for any."""
    return None if size < 0 else int(size)


def _only(details: list[dict[str, Any]], what: str, path: Path) -> dict[str, Any]:
    if len(details) != 1:
        raise ModelError(f"{path}: has {len(details)} {what}; one is needed")
    return details[0]


def _prepare(
    spec: ModelSpec, model_input: dict[str, Any], path: Path
) -> Callable[[UInt8Array], npt.NDArray[Any]]:
    """Return the function from bytes to what the model's input takes."""
    dtype = np.dtype(model_input["dtype"])
    scale, zero_point = model_input["quantization"]
    if dtype == np.float32:
        return lambda images: scaled(images, spec.pixels)
    if scale:
        _check_range(spec, dtype, scale, zero_point, path)
        return lambda images: quantised(scaled(images, spec.pixels), dtype, scale, zero_point)
    if dtype == np.uint8:
        if spec.pixels.is_scaling:
            raise no_scaling(str(path), dtype.name)
        is_reversed = spec.pixels.order == "bgr"
        return lambda images: images[..., ::-1] if is_reversed else images
    raise ModelError(f"{path}: takes {dtype}; float32, uint8 and quantised integers are served")


def _check_range(
    spec: ModelSpec, dtype: np.dtype[Any], scale: float, zero_point: int, path: Path
) -> None:
    """Refuse a rule for pixels that is not the one that the model was quantised with.

    Most pixels would become the least or the largest integer, or nearly all the same one.
    """
    limits, pixels = np.iinfo(dtype), spec.pixels
    theirs = ((limits.min - zero_point) * scale, (limits.max - zero_point) * scale)
    channels = list(zip(pixels.mean, pixels.scale, strict=True))
    ours = (
        min((0 - mean) / divisor for mean, divisor in channels),
        max((255 - mean) / divisor for mean, divisor in channels),
    )
    common = min(theirs[1], ours[1]) - max(theirs[0], ours[0])
    either = max(theirs[1], ours[1]) - min(theirs[0], ours[0])
    if common < LEAST_IN_COMMON * either:
        raise ModelError(
            f"{path}: its quantised input stands for {theirs[0]:.3g} to {theirs[1]:.3g}, and"
            f" [pixels] makes {ours[0]:.3g} to {ours[1]:.3g} of images; give it mean and scale as"
            " the model was trained with"
        )


def _finish(
    spec: ModelSpec, model_output: dict[str, Any]
) -> Callable[[npt.NDArray[Any]], Float32Array]:
    """Return the function from the model's output to probabilities."""
    scale, zero_point = model_output["quantization"]

    def finish(values: npt.NDArray[Any]) -> Float32Array:
        scores: Float32Array = (
            dequantised(values, scale, zero_point) if scale else values.astype(np.float32)
        )
        return softmax(scores) if spec.softmax else scores

    return finish
