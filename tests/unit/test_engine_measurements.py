"""What is measured again, and what is said of it: failures of engines, and of the moment."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.engine_rows import BF16, FAR, LITERT, MODE, OPENVINO, TENSORFLOW, row, spec
from worker.model_spec import ModelError, NotNow
from worker.prepared_folder import locked
from worker.tune import auto, measuring
from worker.tune.auto import chosen, tuned
from worker.tune.table import Candidate, Failure, Mode, Table


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A model that nobody reads."""
    path = tmp_path / "model.keras"
    path.touch()
    return path


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> list[Candidate]:
    """Three engines that are installed."""
    candidates = [TENSORFLOW, LITERT, OPENVINO]
    monkeypatch.setattr(auto, "candidates_of", lambda _: candidates)
    monkeypatch.setattr(auto, "mode_of", lambda _: MODE)
    return candidates


def failed(candidate: Candidate, mode: Mode = MODE, **changes: Any) -> Failure:
    return Failure(candidate=candidate, mode=mode, reason="it crashed", **changes)


@pytest.mark.parametrize(
    ("first", "count"),
    [
        (Table(rows=(row(TENSORFLOW, 100), row(OPENVINO, 160)), failures=(failed(LITERT),)), 1),
        (
            Table(
                rows=(row(TENSORFLOW, 100), row(OPENVINO, 160)),
                failures=(failed(LITERT, is_passing=True),),
            ),
            2,
        ),
        (Table(rows=(row(LITERT, 1), row(OPENVINO, 2)), failures=(failed(TENSORFLOW),)), 2),
        (Table(failures=(failed(TENSORFLOW), failed(LITERT), failed(OPENVINO))), 2),
    ],
    ids=["the model", "a full disk", "TensorFlow failed", "all failed"],
)
def test_failures_of_the_moment_are_not_kept(
    monkeypatch: pytest.MonkeyPatch,
    file: Path,
    three: list[Candidate],
    first: Table,
    count: int,
) -> None:
    good = Table(rows=tuple(row(candidate, 100) for candidate in three))
    to_come = [first, good]
    monkeypatch.setattr(auto, "measured", lambda *_: to_come.pop(0))
    for _ in range(3):
        table = tuned(spec(file), [MODE], file.parent)
    assert len(to_come) == 2 - count
    if count == 2:
        assert table == good


@pytest.mark.usefixtures("three")
def test_who_waited_for_the_one_that_measures_does_not_measure_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    found = Table(
        rows=(row(TENSORFLOW, 100), row(OPENVINO, 160)), failures=(failed(LITERT, is_passing=True),)
    )
    calls = []
    have_looked = threading.Barrier(3)

    @contextmanager
    def lock(path: Path) -> Iterator[None]:
        have_looked.wait(10)
        with locked(path):
            yield

    def measured(*_: object) -> Table:
        calls.append(1)
        return found

    monkeypatch.setattr(auto, "locked", lock)
    monkeypatch.setattr(auto, "measured", measured)
    with ThreadPoolExecutor() as pool:
        tables = list(pool.map(lambda _: tuned(spec(file), [MODE], tmp_path), range(3)))
    assert tables == 3 * [found]
    assert len(calls) == 1


@pytest.mark.parametrize("kind", [NotNow, ModelError])
def test_a_conversion_that_failed_for_the_moment_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[ModelError]
) -> None:
    def converted(*_: object) -> None:
        raise kind("No space left on device")

    monkeypatch.setattr(measuring, "converted", converted)
    table = measuring.measured(spec(tmp_path / "model.keras"), [LITERT], MODE, tmp_path)
    assert table == Table(
        failures=(
            Failure(
                candidate=LITERT,
                mode=MODE,
                reason="No space left on device",
                is_passing=kind is NotNow,
            ),
        )
    )


@pytest.mark.usefixtures("three")
def test_the_log_says_which_engines_were_rejected_for_this_choice_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    other = Mode(processes=1, threads=2)
    table = Table(
        rows=(row(TENSORFLOW, 100), row(OPENVINO, 160, found=FAR), row(OPENVINO, 9, 4, FAR)),
        failures=(failed(LITERT), failed(LITERT, other), failed(BF16)),
    )
    monkeypatch.setattr(auto, "measured", lambda *_: table)
    with capture_logs() as logged:
        found = chosen(spec(file, engine="auto"), threads=1, max_batch_size=0, cache_dir=tmp_path)
    assert found.engine == "tensorflow"
    rejected = {one["engine"]: one for one in logged if "rejected" in one["event"]}
    assert sum("rejected" in one["event"] for one in logged) == 2
    assert rejected["litert 2"]["reason"] == "it crashed"
    assert rejected["openvino 3"]["reason"].startswith("scores differ by up to 0.002")
    assert {one["log_level"] for one in rejected.values()} == {"warning"}
