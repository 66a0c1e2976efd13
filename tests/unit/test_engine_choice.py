"""Which engine is chosen, from timings that are given."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine_rows import (
    BF16,
    FAR,
    LITERT,
    MODE,
    OPENVINO,
    ROUGH,
    SMALL_BUT_ANOTHER_BEST,
    TENSORFLOW,
    row,
    spec,
)
from worker.agreement import Agreement, agreement
from worker.engine import Float32Array
from worker.engines.conversion import digest
from worker.model_spec import (
    ModelChanged,
    ModelError,
    ModelUnreadable,
)
from worker.tune import auto, store
from worker.tune.auto import chosen, tuned
from worker.tune.choice import choose
from worker.tune.table import MAX_PROCESSES, Failure, Mode, Row, Table, mode_of


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
