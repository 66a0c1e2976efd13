"""Finds the engine for a model, and its weights."""

from worker.bundled.prepare import prepared
from worker.engine import Engine
from worker.engines.keras_application import build_application
from worker.engines.model_file import read_model_file
from worker.engines.runtime import set_threads
from worker.engines.tensorflow_engine import TensorflowEngine
from worker.model_spec import (
    BundledModel,
    KerasApplication,
    ModelError,
    ModelFile,
    ModelSpec,
    NoWeights,
)


def load(spec: ModelSpec, *, threads: int) -> Engine:
    """Return the engine of a model; see `worker.model_directory.load_engine`."""
    set_threads(threads)
    match spec.origin:
        case ModelFile(path=path):
            return TensorflowEngine(spec, read_model_file(path))
        case BundledModel(cache_dir=cache_dir):
            return TensorflowEngine(spec, read_model_file(prepared(cache_dir)))
        case KerasApplication(application=application):
            return TensorflowEngine(spec, build_application(application))
        case NoWeights():
            raise ModelError(f"{spec.name}: {spec.engine} needs a model")
