"""Which engine is chosen, from timings that are given."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from worker.agreement import TOLERANCE, Agreement, agreement
from worker.engine import Float32Array
from worker.engines.conversion import digest
from worker.model_spec import (
    InputRule,
    ModelChanged,
    ModelError,
    ModelFile,
    ModelSpec,
    ModelUnreadable,
    NotNow,
)
from worker.prepared_folder import locked
from worker.tune import auto, measuring, store
from worker.tune.auto import chosen, tuned
from worker.tune.choice import choose
from worker.tune.table import MAX_PROCESSES, Candidate, Failure, Mode, Row, Table, mode_of

TENSORFLOW = Candidate(engine="tensorflow", version="1")
LITERT = Candidate(engine="litert", version="2")
OPENVINO = Candidate(engine="openvino", version="3")
BF16 = Candidate(engine="openvino", version="3", precision="bf16")

MODE = Mode(processes=2, threads=1)
GOOD = Agreement(photos=12, max_difference=1e-6, same_best=1)
SMALL_BUT_ANOTHER_BEST = Agreement(photos=12, max_difference=1e-6, same_best=0.9)
FAR = Agreement(photos=12, max_difference=2 * TOLERANCE, same_best=1)
ROUGH = Agreement(photos=12, max_difference=0.05, same_best=1)


def row(candidate: Candidate, rate: float, batch: int = 1, found: Agreement | None = GOOD) -> Row:
    return Row(
        candidate=candidate,
        mode=MODE,
        batch_size=batch,
        images_per_s=rate,
        agreement=None if candidate is TENSORFLOW else found,
    )


def best(*rows: Row, **options: Any) -> Row | None:
    asked: dict[str, Any] = {"max_batch_size": 16, "precision": "float32", **options}
    choice = choose(Table(rows=rows), MODE, **asked)
    return None if choice is None else choice.row


def test_the_fastest_is_chosen_and_said_why() -> None:
    rows = (row(TENSORFLOW, 100), row(LITERT, 130), row(OPENVINO, 160))
    choice = choose(Table(rows=rows), MODE, max_batch_size=16, precision="float32")
    assert choice is not None
    assert choice.row.candidate == OPENVINO
    assert "1.5" in choice.reason
    assert "tensorflow 1 (100)" in choice.reason
    assert "12 of 12 photos" in choice.reason


def test_tensorflow_stays_unless_another_is_clearly_faster() -> None:
    chosen = best(row(TENSORFLOW, 100), row(LITERT, 103))
    assert chosen is not None
    assert chosen.candidate == TENSORFLOW


@pytest.mark.parametrize("found", [FAR, SMALL_BUT_ANOTHER_BEST])
def test_an_engine_that_disagrees_is_not_chosen_however_fast(found: Agreement) -> None:
    chosen = best(row(TENSORFLOW, 100), row(LITERT, 500, found=found))
    assert chosen is not None
    assert chosen.candidate == TENSORFLOW


def test_bf16_is_only_for_who_asks_for_it() -> None:
    rows = (row(TENSORFLOW, 100), row(OPENVINO, 160), row(BF16, 300, found=ROUGH))
    exact, rough = best(*rows), best(*rows, precision="bf16")
    assert exact is not None
    assert rough is not None
    assert (exact.candidate, rough.candidate) == (OPENVINO, BF16)


def test_the_smallest_batch_of_those_that_are_as_good_is_chosen() -> None:
    chosen = best(row(OPENVINO, 160, 1), row(OPENVINO, 178, 4), row(OPENVINO, 180, 16))
    assert chosen is not None
    assert chosen.batch_size == 4


def test_what_each_batch_costs_beside_the_model_counts() -> None:
    # A model of 0.1 ms: of batches of one the worker would be busy with batches, not images.
    chosen = best(row(LITERT, 20_000, 1), row(LITERT, 20_000, 16))
    assert chosen is not None
    assert chosen.batch_size == 16


def test_batches_keep_the_limit() -> None:
    chosen = best(row(OPENVINO, 100, 1), row(OPENVINO, 200, 16), max_batch_size=8)
    assert chosen is not None
    assert chosen.batch_size == 1


def test_other_modes_do_not_count() -> None:
    table = Table(rows=(row(OPENVINO, 160),))
    other = Mode(processes=1, threads=2)
    assert choose(table, other, max_batch_size=16, precision="float32") is None


def test_without_tensorflow_the_fastest_of_the_others_is_chosen() -> None:
    chosen = best(row(LITERT, 130), row(OPENVINO, 120))
    assert chosen is not None
    assert chosen.candidate == LITERT


def test_what_is_measured_again_replaces_what_was() -> None:
    failed = Failure(candidate=LITERT, mode=MODE, reason="it crashed")
    before = Table(rows=(row(OPENVINO, 160), row(OPENVINO, 170, 4)), failures=(failed,))
    after = before.replaced_by(Table(rows=(row(OPENVINO, 90), row(LITERT, 130))))
    assert after == Table(rows=(row(OPENVINO, 90), row(LITERT, 130)))


def test_a_mode_fills_the_cores_and_is_not_measured_with_more_processes_than_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.tune.table.usable_cores", lambda: 2)
    assert mode_of(0) == Mode(processes=1, threads=2)
    assert mode_of(1) == Mode(processes=2, threads=1)
    assert mode_of(8) == Mode(processes=1, threads=8)
    monkeypatch.setattr("worker.tune.table.usable_cores", lambda: 64)
    assert mode_of(1) == Mode(processes=MAX_PROCESSES, threads=1)


def scores(*rows: list[float]) -> Float32Array:
    return np.array(rows, np.float32)


def test_agreement_is_the_largest_difference_and_the_share_of_equal_labels() -> None:
    found = agreement(scores([0.9, 0.1], [0.2, 0.8]), scores([0.4, 0.6], [0.2, 0.8]))
    assert found.max_difference == pytest.approx(0.5)
    assert found.same_best == 0.5
    assert not found.is_within_tolerance("bf16")
    assert "1 of 2 photos" in str(found)


def test_classes_that_tensorflow_cannot_tell_apart_may_change_places() -> None:
    found = agreement(scores([0.5001, 0.4999]), scores([0.4999, 0.5001]))
    assert found.same_best == 1
    assert found.is_within_tolerance("float32")


def test_scores_that_are_no_numbers_agree_with_nothing() -> None:
    found = agreement(scores([0.9, 0.1]), scores([0.9, np.nan]))
    assert (found.max_difference, found.same_best) == (1, 0)


def test_a_damaged_table_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / "engines.json"
    table = Table(rows=(row(OPENVINO, 160), row(TENSORFLOW, 100)))
    store.write(path, table)
    assert store.read(path) == table
    assert [file.name for file in tmp_path.iterdir()] == ["engines.json"]
    path.write_text(path.read_text()[:100])
    assert store.read(path) == Table()
    path.write_text('{"rows": [{"candidate": 3}]}')
    assert store.read(path) == Table()
    assert store.read(tmp_path / "none.json") == Table()


def spec(path: Path, **changes: Any) -> ModelSpec:
    fields: dict[str, Any] = {
        "name": "colours",
        "version": "1",
        "origin": ModelFile(path=path),
        "labels": ("red", "green"),
        "input": InputRule(width=6, height=4),
    }
    return ModelSpec(**(fields | changes))


def test_a_table_is_for_one_content_one_input_and_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.keras"
    file.write_bytes(b"one")
    first = store.path_of(spec(file), tmp_path)
    assert store.path_of(spec(file, version="2", labels=("rot", "grün")), tmp_path) == first
    others = {store.path_of(spec(file, softmax=True), tmp_path)}
    monkeypatch.setattr("worker.tune.store.usable_cores", lambda: 1000)
    others.add(store.path_of(spec(file), tmp_path))
    monkeypatch.undo()
    monkeypatch.setattr("worker.tune.store.processor", lambda: "another")
    others.add(store.path_of(spec(file), tmp_path))
    monkeypatch.undo()
    file.write_bytes(b"two")
    others.add(store.path_of(spec(file), tmp_path))
    assert len(others) == 4
    assert first not in others


def test_a_model_that_changes_while_it_is_measured_has_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.keras"
    file.write_bytes(b"one")

    def measured(*_: object) -> Table:
        file.write_bytes(b"two")
        return Table(rows=(row(TENSORFLOW, 100),))

    monkeypatch.setattr(auto, "measured", measured)
    with pytest.raises(ModelChanged, match=r"^colours: the model was changed during the start"):
        tuned(spec(file), [MODE], tmp_path)
    assert not list(tmp_path.glob("*.json"))


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
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    three: list[Candidate],
    first: Table,
    count: int,
) -> None:
    file = tmp_path / "model.keras"
    file.touch()
    good = Table(rows=tuple(row(candidate, 100) for candidate in three))
    to_come = [first, good]
    monkeypatch.setattr(auto, "measured", lambda *_: to_come.pop(0))
    for _ in range(3):
        table = tuned(spec(file), [MODE], tmp_path)
    assert len(to_come) == 2 - count
    if count == 2:
        assert table == good


def test_who_waited_for_the_one_that_measures_does_not_measure_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three: list[Candidate]
) -> None:
    del three
    file = tmp_path / "model.keras"
    file.touch()
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


def test_the_log_says_which_engines_were_rejected_for_this_choice_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three: list[Candidate]
) -> None:
    del three
    file = tmp_path / "model.keras"
    file.touch()
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


def test_a_model_that_cannot_be_read_is_no_fault_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.keras"
    file.write_bytes(b"one")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    # Whoever is root may read anything.
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ModelUnreadable, match=r"model\.keras: Permission denied$"):
        chosen(spec(file, engine="auto"), threads=1, max_batch_size=0, cache_dir=tmp_path)


def test_a_folder_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "saved" / "variables").mkdir(parents=True)
    scan = os.scandir

    def refuse(path: Path) -> Any:
        if str(path).endswith("variables"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ModelUnreadable, match=r"saved/variables: Permission denied$"):
        digest(spec(tmp_path / "saved"))


def test_what_lies_in_a_linked_folder_is_part_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "variables").symlink_to(tmp_path / "weights")
    (tmp_path / "saved" / "itself").symlink_to(tmp_path / "saved")
    (tmp_path / "weights" / "data").write_bytes(b"one")
    before = digest(spec(tmp_path / "saved"))
    assert digest(spec(tmp_path / "saved")) == before
    (tmp_path / "weights" / "data").write_bytes(b"two")
    assert digest(spec(tmp_path / "saved")) != before


@pytest.mark.parametrize(
    ("name", "engine", "complaint"),
    [
        ("model.tflite", "tensorflow", "model.tflite is run by litert, not by tensorflow"),
        ("model.tflite", "openvino", "model.tflite is run by litert"),
        ("model.xml", "litert", "model.xml is run by openvino"),
    ],
)
def test_a_file_of_one_engine_is_refused_by_others(
    name: str, engine: Any, complaint: str, tmp_path: Path
) -> None:
    auto = spec(tmp_path / name, engine="auto")
    with pytest.raises(ModelError, match=complaint):
        auto.with_engine(engine, None)


def test_bf16_is_refused_where_nobody_computes_in_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tensorflow does not compute in bf16; openvino does"):
        spec(tmp_path / "model.keras").with_engine(None, "bf16")


def test_no_model_has_no_other_engine(tmp_path: Path) -> None:
    null = spec(tmp_path / "model.keras", engine="null")
    assert null.with_engine("auto", "bf16") is null
