"""Measures engines against each other, in turns, so that a busy machine is the same to all."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from worker.agreement import Agreement
from worker.engines.conversion import converted
from worker.model_spec import ENGINE_OF_SUFFIX, ModelError, ModelFile, ModelSpec, NotNow
from worker.tune.table import Candidate, Failure, Mode, Row, Table, mode_of
from worker.tune.trial import Trial, TrialFailed

BATCH_SIZES: Final = (1, 4, 16)

ROUNDS: Final = 4
ROUND_S: Final = 0.25
"""How long an engine runs with one size of batch, in each round."""

BUDGET_S: Final = 60.0
"""After that only what every engine needs is measured: one run with a batch of one."""

LONGEST_BATCH_S: Final = 1.0
"""A size of batch that would take longer is left out."""


def measured(
    spec: ModelSpec, candidates: Sequence[Candidate], mode: Mode, cache_dir: Path
) -> Table:
    """Return what the engines do in one mode. Takes half a minute or more the first time.

    Args:
        spec: the model.
        candidates: engines.
        mode: how they run.
        cache_dir: where converted models are kept.
    """
    errors = _convert(spec, candidates, cache_dir)
    failures = {candidate: str(error) for candidate, error in errors.items()}
    with ExitStack() as stack:
        trials = {
            candidate: stack.enter_context(
                Trial(
                    spec.with_engine(candidate.engine, candidate.precision),
                    processes=mode.processes,
                    # What a worker is told that has all cores: TensorFlow runs more of a model at
                    # a time than with a number, if that is its own choice.
                    threads=0 if mode == mode_of(0) else mode.threads,
                    cache_dir=cache_dir,
                )
            )
            for candidate in candidates
            if candidate not in failures
        }
        agreements = _load(trials, failures)
        rates = _rates({one: trials[one] for one in agreements}, failures)
    return Table(
        rows=tuple(
            Row(
                candidate=candidate,
                mode=mode,
                batch_size=batch_size,
                # What else runs on the machine only slows it down.
                images_per_s=max(of_rounds),
                agreement=agreements[candidate],
            )
            for (candidate, batch_size), of_rounds in rates.items()
            if candidate not in failures
        ),
        failures=tuple(
            Failure(
                candidate=candidate,
                mode=mode,
                reason=reason,
                is_passing=isinstance(errors.get(candidate), NotNow),
            )
            for candidate, reason in failures.items()
        ),
    )


def _convert(
    spec: ModelSpec, candidates: Sequence[Candidate], cache_dir: Path
) -> dict[Candidate, ModelError]:
    """Convert the model for all engines at once; return why it failed for some."""
    if isinstance(spec.origin, ModelFile) and spec.origin.path.suffix in ENGINE_OF_SUFFIX:
        return {}
    failures = {}
    with ThreadPoolExecutor() as pool:
        futures = {
            candidate: pool.submit(converted, spec, candidate.engine, cache_dir)
            for candidate in candidates
            if candidate.engine in {"litert", "openvino"}
        }
        for candidate, future in futures.items():
            try:
                future.result()
            except ModelError as error:
                failures[candidate] = error
    return failures


def _load(
    trials: Mapping[Candidate, Trial], failures: dict[Candidate, str]
) -> dict[Candidate, Agreement | None]:
    agreements = {}
    for candidate, trial in trials.items():
        try:
            agreements[candidate] = trial.load()
        except TrialFailed as error:
            failures[candidate] = str(error)
    return agreements


def _rates(
    trials: Mapping[Candidate, Trial], failures: dict[Candidate, str]
) -> dict[tuple[Candidate, int], list[float]]:
    """Return images per second, of each round."""
    rates: dict[tuple[Candidate, int], list[float]] = defaultdict(list)
    ends_at = time.monotonic() + BUDGET_S
    for number in range(ROUNDS):
        for candidate, trial in trials.items():
            for batch_size in BATCH_SIZES:
                if candidate in failures or _is_too_slow(rates, candidate, batch_size):
                    continue
                # One measurement of each engine there shall be, however slow the machine is.
                if (number or batch_size > 1) and time.monotonic() > ends_at:
                    continue
                try:
                    rate = trial.images_per_s(batch_size, ROUND_S)
                except TrialFailed as error:
                    failures[candidate] = str(error)
                else:
                    rates[candidate, batch_size].append(rate)
    return rates


def _is_too_slow(
    rates: Mapping[tuple[Candidate, int], Sequence[float]], candidate: Candidate, batch_size: int
) -> bool:
    alone = rates.get((candidate, 1), ())
    return batch_size > 1 and any(batch_size / rate > LONGEST_BATCH_S for rate in alone)
