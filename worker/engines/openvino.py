"""Runs an OpenVINO model (`.xml` and `.bin`) on the CPU."""

import sys
from typing import Any, Final

import numpy as np

from worker.engine import Float32Array, UInt8Array
from worker.engines.around_model import softmax
from worker.engines.checks import check_input, check_runs, no_scaling
from worker.engines.engine_file import EngineFile
from worker.engines.fixed_sizes import FixedSizes, Run
from worker.machine import usable_cores
from worker.model_spec import ModelError, ModelSpec

# OpenVINO reports to its makers that it was imported, if it finds the package for
# that. Nothing here calls anybody of its own accord.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402 - after the line above

__all__ = ["OpenvinoEngine", "ov"]

DEVICE: Final = "CPU"
ABILITIES: Final = "OPTIMIZATION_CAPABILITIES"
_CHANNELS: Final = 3
_RANK: Final = 4

PRECISIONS: Final = {"float32": "f32", "bf16": "bf16"}
"""Our names of them → its own."""


class OpenvinoEngine(FixedSizes):
    """One model, compiled for each size of batch that was asked for.

    Args:
        spec: what the model should be; its rule for pixels is built into the graph.
        file: the `.xml` file; its `.bin` lies beside it. Channels may come first or last.
        threads: of one inference; 0: one for each core.

    Raises:
        ModelError: the file cannot be loaded, is not what `spec` says, or the processor does not
            compute in its precision.
    """

    def __init__(self, spec: ModelSpec, file: EngineFile, *, threads: int) -> None:
        super().__init__(spec, self._compiled)
        self._file = file
        self._core = ov.Core()
        if spec.precision == "bf16" and "BF16" not in self._core.get_property(DEVICE, ABILITIES):
            raise ModelError(f"{spec.name}: this processor does not compute in bf16")
        self._properties: dict[str, Any] = {
            # One inference at a time: batches are made before.
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            # Left to itself it computes in bf16 wherever the processor can.
            "INFERENCE_PRECISION_HINT": PRECISIONS[spec.precision],
            # Processes that pin their only thread choose the same core.
            "ENABLE_CPU_PINNING": False,
            # It would count the cores of the machine, not those of the container.
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
        }
        check_runs(self, spec, file.path)

    def _compiled(self, size: int) -> Run:
        file = self._file
        if file.content is None:
            model = self._core.read_model(file.path)
        else:
            weights = ov.Tensor(file.weights, shared_memory=True)
            model = self._core.read_model(file.content, weights)
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise ModelError(
                f"{file.path}: has {len(model.inputs)} inputs and {len(model.outputs)} outputs;"
                " one of each is needed"
            )
        model = _of_bytes(self._spec, model)
        model.reshape([size, self._spec.input.height, self._spec.input.width, _CHANNELS])
        request = self._core.compile_model(model, DEVICE, self._properties).create_infer_request()
        has_logits = self._spec.softmax

        def run(images: UInt8Array) -> Float32Array:
            # Read in place: the call returns when they have been read. What must not be written
            # to, as a single image where it was decoded, OpenVINO does not take without a copy.
            shared = np.require(images, requirements=["C", "W"])
            request.set_input_tensor(ov.Tensor(shared, shared_memory=True))
            request.infer()
            scores: Float32Array = request.get_output_tensor().data.astype(np.float32)
            return softmax(scores) if has_logits else scores

        return run


def _of_bytes(spec: ModelSpec, model: Any) -> Any:
    """Return the model with scaling and the order of channels built in."""
    shape = [None if side.is_dynamic else side.get_length() for side in model.input().partial_shape]
    is_first = len(shape) == _RANK and shape[1] == _CHANNELS and shape[3] != _CHANNELS
    last = [shape[0], shape[2], shape[3], shape[1]] if is_first else shape
    check_input(spec, [None, *last[1:]])
    steps = ov.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW" if is_first else "NHWC"))
    process = steps.input().preprocess()
    pixels = spec.pixels
    if pixels.is_scaling:
        takes = model.input().element_type
        if not takes.is_real():
            raise no_scaling(spec.name, takes.get_type_name())
        process.convert_element_type(ov.Type.f32).mean(list(pixels.mean)).scale(list(pixels.scale))
    if pixels.order == "bgr":
        process.reverse_channels()
    return steps.build()
