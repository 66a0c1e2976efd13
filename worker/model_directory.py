"""From what the worker was told to serve to a loaded engine."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from worker.bundled.spec import NAME as BUNDLED_NAME
from worker.bundled.spec import bundled_model
from worker.decode import decode
from worker.engine import Engine, UInt8Array
from worker.engines.null import NullEngine, checked
from worker.keras_applications import PREFIX, keras_application
from worker.model_spec import DEFAULT_CACHE, EngineName, ModelError, ModelSpec, Precision
from worker.model_toml import PATH_ERRORS, path_fault, read_model_directory


def open_model(
    source: str,
    cache_dir: Path,
    *,
    engine: EngineName | None = None,
    precision: Precision | None = None,
) -> ModelSpec:
    """Return what a model is, without loading it: takes milliseconds.

    Args:
        source: `efficientnet-lite0`, `keras-applications:<Name>`, or the path of a directory with
            a `model.toml`. A directory that is called like the bundled model needs a `./`.
        cache_dir: where prepared and downloaded models are kept; `~` is the home directory.
        engine: runs it, whatever its description says; None: what that says.
        precision: likewise.

    Raises:
        ModelError: there is no such model, its description is wrong, or the engine cannot run it.
    """
    cache_dir = cache_dir.expanduser()
    if source == BUNDLED_NAME:
        return bundled_model(cache_dir).with_engine(engine, precision)
    if source.startswith(PREFIX):
        application = keras_application(source.removeprefix(PREFIX), cache_dir)
        return application.with_engine(engine, precision)
    try:
        directory = Path(source).expanduser()
        is_there = directory.is_dir()
    except PATH_ERRORS as error:
        raise ModelError(f"{source!r}: {path_fault(error)}") from None
    if not is_there:
        raise ModelError(
            f"{source!r} is neither {BUNDLED_NAME!r} nor {PREFIX}<Name> nor a directory"
        )
    return read_model_directory(directory, engine=engine, precision=precision)


def decoder(spec: ModelSpec, *, max_pixels: int) -> Callable[[bytes], UInt8Array]:
    """Return what turns a caller's bytes into the model's input; it raises `InvalidImage`.

    Args:
        spec: what `open_model` returned.
        max_pixels: most pixels, width x height, that an image may have.
    """
    if spec.engine == "null":
        return checked
    return partial(decode, rule=spec.input, max_pixels=max_pixels)


def load_engine(
    spec: ModelSpec, *, threads: int, alone_threads: int = 0, cache_dir: Path = DEFAULT_CACHE
) -> Engine:
    """Load a model: takes seconds, and blocks; the first time longer, if it has to be converted.

    Args:
        spec: what `open_model` returned.
        threads: threads that one inference may use; 0: the engine's own choice. With TensorFlow it
            counts for the whole process, so the first engine that is loaded decides.
        alone_threads: threads for one image while no other worker of this machine computes, if they
            are more, and `threads` is not 0; not with TensorFlow.
        cache_dir: where converted models are kept.

    Raises:
        ModelError: the model cannot be loaded, or is not what its description says.
    """
    if spec.engine == "null":
        return NullEngine(len(spec.labels))
    # Importing an engine takes up to some seconds: only whoever loads a model pays for it.
    from worker.engines.loading import load  # noqa: PLC0415

    return load(
        spec, threads=threads, alone_threads=alone_threads, cache_dir=cache_dir.expanduser()
    )
