"""`engine = "auto"`: from a model whose engine is open to one whose engine is chosen."""

from collections.abc import Sequence
from pathlib import Path

import structlog

from worker.engines.installed import version_of
from worker.model_spec import ENGINE_OF_SUFFIX, EngineName, ModelChanged, ModelFile, ModelSpec
from worker.prepared_folder import locked
from worker.tune import store
from worker.tune.choice import Choice, choose
from worker.tune.measuring import measured
from worker.tune.table import Candidate, Mode, Table, mode_of

log = structlog.get_logger()

ENGINES: tuple[EngineName, ...] = ("tensorflow", "litert", "openvino")


def chosen(spec: ModelSpec, *, threads: int, max_batch_size: int, cache_dir: Path) -> ModelSpec:
    """Return the model with its engine chosen.

    How many images are taken at a time is found out when it is loaded, as with any engine.

    Takes milliseconds unless the engines have to be measured, which is half a minute or more. If
    that fails it is TensorFlow.

    Args:
        spec: the model; returned as it is unless its engine is `auto`.
        threads: of each inference; 0: all cores.
        max_batch_size: a limit; 0: what the model suggests.
        cache_dir: where converted models and measurements are kept.

    Raises:
        ModelChanged: it was changed meanwhile.
        ModelUnreadable: it cannot be read.
    """
    if spec.engine != "auto":
        return spec
    candidates = candidates_of(spec)
    if len(candidates) == 1:
        log.info("engine chosen", engine=candidates[0].engine, reason="no other is installed")
        return _run_by(spec, candidates[0])
    mode = mode_of(threads)
    try:
        table = tuned(spec, [mode], cache_dir)
    except OSError as error:
        reason = f"the cache cannot be written: {error.strerror or error}"
        log.warning("engines not measured; the first is used", reason=reason)
        return _run_by(spec, candidates[0])
    _tell_rejected(table, candidates, mode)
    limit = max_batch_size or spec.default_batch_size
    choice = choose(table, mode, max_batch_size=limit, precision=spec.precision)
    if choice is None:
        log.error("no engine can be used; trying the first")
        return _run_by(spec, candidates[0])
    _tell(table, mode, choice)
    return _run_by(spec, choice.row.candidate)


def tuned(
    spec: ModelSpec, modes: Sequence[Mode], cache_dir: Path, *, is_forced: bool = False
) -> Table:
    """Return what the engines do in these modes; measure what is not known yet.

    Any number of processes may call this at once: one measures, the others wait for it.

    Args:
        spec: the model.
        modes: how workers run.
        cache_dir: where measurements are kept.
        is_forced: measure again what is known.

    Raises:
        ModelChanged: it was changed meanwhile.
        ModelUnreadable: it cannot be read.
        OSError: the cache cannot be written.
    """
    candidates = candidates_of(spec)
    path = store.path_of(spec, cache_dir)
    seen_at = store.written_at(path)
    table = store.read(path)
    if not is_forced and not _missing(table, candidates, modes):
        return table
    cache_dir.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        # Somebody else may have measured while we waited. What failed for the moment then is for
        # the next start: else all processes of a worker would try it, one after the other.
        is_newer = store.written_at(path) != seen_at
        table = store.read(path)
        for mode in modes if is_forced else _missing(table, candidates, modes):
            if is_newer and not is_forced and table.has_any(candidates, mode):
                continue
            log.info(
                "measuring engines; this takes half a minute or more",
                engines=[str(candidate) for candidate in candidates],
                processes=mode.processes,
                threads=mode.threads,
            )
            table = table.replaced_by(measured(spec, candidates, mode, cache_dir))
            if store.path_of(spec, cache_dir) != path:
                raise ModelChanged(spec)
            store.write(path, table)
    return table


def candidates_of(spec: ModelSpec) -> list[Candidate]:
    """Return the engines that can run a model here, TensorFlow first."""
    names = ENGINES
    if isinstance(spec.origin, ModelFile) and spec.origin.path.suffix in ENGINE_OF_SUFFIX:
        names = (ENGINE_OF_SUFFIX[spec.origin.path.suffix],)
    found = [(name, version) for name in names if (version := version_of(name)) is not None]
    if not found:
        # Loading it says what is missing.
        return [Candidate(engine=names[0], version="not installed")]
    candidates = [Candidate(engine=name, version=version) for name, version in found]
    if spec.precision == "bf16":
        candidates += [
            Candidate(engine=name, version=version, precision="bf16")
            for name, version in found
            if name == "openvino"
        ]
    return candidates


def _missing(table: Table, candidates: Sequence[Candidate], modes: Sequence[Mode]) -> list[Mode]:
    return [mode for mode in modes if not table.is_complete(candidates, mode)]


def _run_by(spec: ModelSpec, candidate: Candidate) -> ModelSpec:
    return spec.with_engine(candidate.engine, candidate.precision)


def _tell_rejected(table: Table, candidates: Sequence[Candidate], mode: Mode) -> None:
    for failure in table.failures:
        if failure.mode == mode and failure.candidate in candidates:
            log.warning(
                "engine rejected; `despacho tune --force` tries again",
                engine=str(failure.candidate),
                reason=failure.reason,
            )
    disagreeing = {
        row.candidate: row.agreement
        for row in table.rows
        if row.mode == mode and row.candidate in candidates and not row.is_acceptable
    }
    for candidate, found in disagreeing.items():
        log.warning("engine rejected; it disagrees", engine=str(candidate), reason=str(found))


def _tell(table: Table, mode: Mode, choice: Choice) -> None:
    for row in table.rows:
        if row.mode == mode:
            log.debug(
                "engine measured",
                engine=str(row.candidate),
                batch_size=row.batch_size,
                images_per_s=round(row.images_per_s, 1),
                agreement=str(row.agreement),
            )
    row = choice.row
    log.info(
        "engine chosen",
        engine=str(row.candidate),
        processes=mode.processes,
        threads=mode.threads,
        measured_batch_size=row.batch_size,
        images_per_s=round(row.images_per_s, 1),
        reason=choice.reason,
    )
