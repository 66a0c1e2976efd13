"""Reads the network of a model for TensorFlow, wherever its weights come from."""

from worker.bundled.prepare import prepared
from worker.engines.keras_application import build_application
from worker.engines.model_file import Network, read_model_file
from worker.model_spec import (
    BundledModel,
    KerasApplication,
    ModelError,
    ModelFile,
    ModelSpec,
    NoWeights,
)


def read_network(spec: ModelSpec) -> Network:
    """Return the network of a model.

    Raises:
        ModelError: it cannot be loaded.
    """
    match spec.origin:
        case ModelFile(path=path):
            return read_model_file(path)
        case BundledModel(cache_dir=cache_dir):
            return read_model_file(prepared(cache_dir))
        case KerasApplication(application=application):
            return build_application(application)
        case NoWeights():
            raise ModelError(f"{spec.name}: {spec.engine} needs a model")
