"""Converts a model for an engine: a process of its own, see `conversion.py`.

Reads one line of JSON: the description of the model, the engine, and the folder to fill.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from worker.agreement import photos, scores_of
from worker.engines.checks import summary
from worker.engines.child import orders
from worker.engines.conversion import FILES, NOT_NOW, PHOTOS, REFERENCE, WHY_NOT
from worker.keras_applications import set_keras_home
from worker.model_spec import ModelSpec, NotNow


def main() -> int:
    """Carry out one order; return the exit code.

    The last line that is printed says why it failed.
    """
    order = json.loads(next(orders()))
    spec = ModelSpec.model_validate_json(json.dumps(order["spec"]))
    folder = Path(order["folder"])
    set_keras_home(spec.origin)
    try:
        convert(spec, order["target"], folder)
    except Exception as error:  # noqa: BLE001 - whatever a converter raises
        print(summary(error), file=sys.stderr)  # noqa: T201 - for the parent
        return NOT_NOW if is_passing(error) else 1
    return 0


def convert(spec: ModelSpec, target: str, folder: Path) -> None:
    """Write the model for an engine, the photos, and TensorFlow's scores of them.

    Raises:
        ModelError: TensorFlow cannot run it.
        Exception: whatever a converter raises.
    """
    # Here, so that the way home to KERAS_HOME is set.
    from worker.engines.network import read_network  # noqa: PLC0415
    from worker.engines.scoring_graph import frozen, scoring_graph  # noqa: PLC0415
    from worker.engines.tensorflow_engine import TensorflowEngine  # noqa: PLC0415

    network = read_network(spec)
    images = photos(spec.input)
    np.save(folder / PHOTOS, images)
    np.save(folder / REFERENCE, scores_of(TensorflowEngine(spec, network), images))
    try:
        graph = frozen(scoring_graph(spec, network))
    except Exception as error:
        if target != "tensorflow" or is_passing(error):
            raise
        # Such a model is run in Python, and no later start should try again.
        (folder / WHY_NOT).write_text(summary(error))
        return
    writers = {
        "tensorflow": _write_graph,
        "litert": _write_litert,
        "openvino": _write_openvino,
    }
    writers[target](graph, folder / FILES[target])


def is_passing(error: Exception) -> bool:
    """Return whether an error is one of the machine at this moment, and not of the model."""
    if isinstance(error, ImportError):
        return False  # of TensorFlow itself, for example
    from worker.engines.runtime import tf  # noqa: PLC0415

    passing = (NotNow, MemoryError, OSError, tf.errors.ResourceExhaustedError)
    return isinstance(error, passing)


def _write_graph(graph: Any, path: Path) -> None:
    from worker.engines.runtime import convert_variables_to_constants_v2  # noqa: PLC0415
    from worker.engines.tensorflow_library import SCORES  # noqa: PLC0415

    # Once more, if it was frozen when it was saved: a function that it calls, with the weights in
    # it, is then part of it, and not kept beside it.
    graph = convert_variables_to_constants_v2(graph)
    definition = graph.graph.as_graph_def()
    (output,) = graph.outputs
    # What freezing calls the output is its own affair.
    named = definition.node.add(name=SCORES, op="Identity", input=[output.name])
    named.attr["T"].type = output.dtype.as_datatype_enum
    path.write_bytes(definition.SerializeToString())


def _write_litert(graph: Any, path: Path) -> None:
    from worker.engines.runtime import tf  # noqa: PLC0415

    module = tf.Module()
    module.call = graph
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], module)
    path.write_bytes(converter.convert())


def _write_openvino(graph: Any, path: Path) -> None:
    from worker.engines.openvino import ov  # noqa: PLC0415
    from worker.engines.runtime import tf  # noqa: PLC0415

    module = tf.Module()
    module.call = graph
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=graph)
        model = ov.Core().read_model(folder)
        try:
            # It would halve the digits of the weights otherwise.
            ov.save_model(model, path, compress_to_fp16=False)
        except RuntimeError as error:
            # What it raises if the disk is full, too. The model itself has been understood.
            raise OSError(f"{path} cannot be written: {summary(error)}") from error


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # TensorFlow takes its time to be torn down, and nobody needs that.
    os._exit(code)
