"""How many threads engines get, and that what is measured is what is served."""

from pathlib import Path
from typing import Any, Self

import pytest

from worker.engines import installed, loading
from worker.model_spec import InputRule, ModelFile, ModelSpec
from worker.tune import measuring
from worker.tune.table import Candidate, Mode, mode_of
from worker.tune.trial import TrialFailed

SPEC = ModelSpec(
    name="colours",
    version="1",
    origin=ModelFile(path=Path("model.keras")),
    labels=("red", "green"),
    input=InputRule(width=6, height=4),
)


@pytest.mark.parametrize(
    ("asked", "quota", "given"),
    [(0, 1, 1), (0, 48, 48), (0, 64, 0), (2, 1, 2), (2, 64, 2)],
)
def test_tensorflow_has_no_more_threads_than_its_container_has_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: int, quota: int, given: int
) -> None:
    seen = []

    def begin(spec: ModelSpec, threads: int, *_: object) -> Any:
        del spec
        seen.append(threads)

    monkeypatch.setattr(installed, "version_of", lambda _: "1")
    monkeypatch.setattr(loading, "usable_cores", lambda: quota)
    monkeypatch.setattr(loading, "scheduled_cores", lambda: 64)
    # Whichever of the two is left of it, the library in C or all of TensorFlow.
    monkeypatch.setattr(loading, "converted", lambda *_: 1 / 0)
    monkeypatch.setattr(loading, "in_python", begin)
    loading.load_unchecked(SPEC, threads=asked, cache_dir=tmp_path)
    assert seen == [given]


def test_engines_are_measured_with_the_threads_that_workers_give_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    class NoTrial:
        def __init__(self, spec: ModelSpec, **options: Any) -> None:
            asked.append((spec.engine, options["processes"], options["threads"]))

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def load(self) -> None:
            raise TrialFailed("there is no engine")

    monkeypatch.setattr("worker.tune.table.usable_cores", lambda: 2)
    monkeypatch.setattr(measuring, "Trial", NoTrial)
    tensorflow = Candidate(engine="tensorflow", version="1")
    for mode in (mode_of(0), mode_of(1), Mode(processes=1, threads=8)):
        measuring.measured(SPEC, [tensorflow], mode, tmp_path)
    assert asked == [("tensorflow", 1, 0), ("tensorflow", 2, 1), ("tensorflow", 1, 8)]
