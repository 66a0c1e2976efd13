"""Loads a model in its engine. What an engine is made of is imported when it is wanted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from worker.agreement import Agreement
from worker.computing import Computing
from worker.engine import Engine
from worker.engines.all_cores import AllCores, wide_engine
from worker.engines.checks import (
    CHECKED_PHOTOS,
    check_on_photos,
    summary,
    warn_of_second_softmax,
)
from worker.engines.conversion import Converted, converted
from worker.engines.engine_file import EngineFile, read_whole
from worker.engines.installed import require
from worker.keras_applications import set_keras_home
from worker.machine import scheduled_cores, usable_cores
from worker.model_spec import (
    ENGINE_OF_SUFFIX,
    ModelChanged,
    ModelError,
    ModelFile,
    ModelSpec,
    ModelUnreadable,
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine, and what to compare it with."""

    engine: Engine

    converted: Converted | None
    """What it runs, with TensorFlow's scores; None: this is the model's own engine."""

    with_threads: Callable[[int], Engine] | None
    """Returns another engine of the same file, with so many threads; None: there cannot be one, as
    all engines of a process share their threads."""

    def compared(self, count: int | None = None) -> Agreement | None:
        """Compare it with TensorFlow; return None if there is nothing to compare.

        Args:
            count: of photos; None: all.
        """
        return None if self.converted is None else self.converted.compared_with(self.engine, count)


def load(spec: ModelSpec, *, threads: int, alone_threads: int, cache_dir: Path) -> Engine:
    """Return the engine of a model; see `worker.model_directory.load_engine`.

    Raises:
        ModelError: it cannot be loaded, or disagrees with TensorFlow.
    """
    loaded = load_unchecked(spec, threads=threads, cache_dir=cache_dir)
    found = loaded.compared(CHECKED_PHOTOS)
    if found is not None:
        if not found.is_within_tolerance(spec.precision):
            raise ModelError(
                f"{spec.name}: {spec.engine} disagrees with TensorFlow: {found};"
                " serve it with another engine"
            )
        log.info(
            "engine agrees with TensorFlow",
            engine=spec.engine,
            precision=spec.precision,
            agreement=str(found),
        )
    wide = None
    if alone_threads > threads > 0 and loaded.with_threads is not None:
        wide = wide_engine(partial(loaded.with_threads, alone_threads))
    return AllCores(loaded.engine, wide, Computing())


def load_unchecked(spec: ModelSpec, *, threads: int, cache_dir: Path) -> Loaded:
    """Return the engine of a model, whatever its scores are.

    Raises:
        ModelError: it cannot be loaded.
    """
    match spec.engine:
        case "tensorflow":
            require("tensorflow")
            engine = _tensorflow(spec, _tensorflow_threads(threads), cache_dir)
            return Loaded(engine, None, None)
        case "litert" | "openvino" as target:
            require(target)
            if isinstance(spec.origin, ModelFile) and spec.origin.path.suffix in ENGINE_OF_SUFFIX:
                file = read_whole(spec.origin.path)
                engine = _other(spec, file, threads)
                check_on_photos(spec, engine.predict)
                return Loaded(engine, None, partial(_other, spec, file))
            model: Converted = converted(spec, target, cache_dir)
            warn_of_second_softmax(spec, model.reference())
            spec, file = model.spec, EngineFile(model.path)
            return Loaded(_other(spec, file, threads), model, partial(_other, spec, file))
        case _:
            raise ModelError(f"{spec.name}: the engine {spec.engine} cannot be loaded as it is")


def _tensorflow_threads(threads: int) -> int:
    """Return how many threads TensorFlow shall have; 0: its own choice.

    That is a thread for each core that the system runs this process on. Where a container has only
    a quota of them, they would use it up at once and then all stand still.
    """
    cores = usable_cores()
    return threads or (cores if cores < scheduled_cores() else 0)


def _tensorflow(spec: ModelSpec, threads: int, cache_dir: Path) -> Engine:
    """Return the engine that needs less memory, or else the one that takes any model."""
    from worker.engines.frozen_engine import FrozenEngine  # noqa: PLC0415

    try:
        model = converted(spec, "tensorflow", cache_dir)
        engine = FrozenEngine(model.spec, model.path, threads=threads)
        found = model.compared_with(engine, CHECKED_PHOTOS)
        if not found.is_within_tolerance(spec.precision):
            raise ModelError(f"others than in Python: {found}")
        warn_of_second_softmax(spec, model.reference())
        return engine
    except (ModelChanged, ModelUnreadable):
        raise
    except Exception as error:  # noqa: BLE001 - if it is the model, the other engine says so, too
        log.warning(
            "model not run by the C library; it takes more memory",
            reason=summary(error),
            see="docs/models.md, How TensorFlow runs a model",
        )
    return in_python(spec, threads)


def in_python(spec: ModelSpec, threads: int) -> Engine:
    """Return the engine of a model in this process, with all of TensorFlow.

    Raises:
        ModelError: it cannot be loaded.
    """
    set_keras_home(spec.origin)
    with _importing("tensorflow"):
        from worker.engines.network import read_network  # noqa: PLC0415
        from worker.engines.runtime import set_threads  # noqa: PLC0415
        from worker.engines.tensorflow_engine import TensorflowEngine  # noqa: PLC0415

    set_threads(threads)
    return TensorflowEngine(spec, read_network(spec))


def _other(spec: ModelSpec, file: EngineFile, threads: int) -> Engine:
    """Return the engine that runs such a file."""
    if spec.engine == "litert":
        with _importing("litert"):
            from worker.engines.litert import LitertEngine  # noqa: PLC0415

        return LitertEngine(spec, file, threads=threads)
    with _importing("openvino"):
        from worker.engines.openvino import OpenvinoEngine  # noqa: PLC0415

    return OpenvinoEngine(spec, file, threads=threads)


@contextmanager
def _importing(engine: str) -> Iterator[None]:
    """Say in one line that a package which is there is broken."""
    try:
        yield
    except (ImportError, OSError) as error:
        raise ModelError(f"the engine {engine} cannot be imported: {summary(error)}") from error
