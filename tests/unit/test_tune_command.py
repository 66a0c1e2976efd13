"""`python -m worker.tune`, from measurements that are given."""

import sys
from pathlib import Path
from typing import Any

import pytest

from worker import machine
from worker.agreement import Agreement
from worker.model_spec import ModelSpec
from worker.settings import WorkerSettings
from worker.tune import __main__ as command
from worker.tune import table
from worker.tune.table import Candidate, Failure, Mode, Row, Table

TENSORFLOW = Candidate(engine="tensorflow", version="1")
LITERT = Candidate(engine="litert", version="2")
MODE = Mode(processes=2, threads=1)
GOOD = Agreement(photos=12, max_difference=1e-6, same_best=1)
FAR = Agreement(photos=12, max_difference=0.5, same_best=0.75)


def row(candidate: Candidate, found: Agreement | None) -> Row:
    return Row(candidate=candidate, mode=MODE, batch_size=1, images_per_s=100, agreement=found)


def run(monkeypatch: pytest.MonkeyPatch, cache_dir: Path, table: Table) -> int:
    """The command, when this is what it measures."""
    monkeypatch.setattr(command, "mode_of", lambda _: MODE)
    monkeypatch.setattr(command, "candidates_of", lambda _: [TENSORFLOW, LITERT])
    monkeypatch.setattr(command, "tuned", lambda *_, **__: table)
    monkeypatch.setattr("telemetry.logs.configure", lambda *_, **__: None)
    monkeypatch.setenv("WORKER_CACHE_DIR", str(cache_dir))
    monkeypatch.setattr(sys, "argv", ["tune", "keras-applications:MobileNet"])
    return command.main()


@pytest.mark.parametrize(("found", "code"), [(GOOD, 0), (FAR, command.UNUSABLE), (None, 3)])
def test_it_fails_if_no_engine_can_be_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: Agreement | None,
    code: int,
) -> None:
    failure = Failure(candidate=TENSORFLOW, mode=MODE, reason="it crashed")
    rows = () if found is None else (row(LITERT, found),)
    assert run(monkeypatch, tmp_path, Table(rows=rows, failures=(failure,))) == code
    assert "it crashed" in capsys.readouterr().out


def test_a_cache_in_the_home_of_nobody_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, Path("~nosuchuser/cache"), Table()) == command.REFUSED
    assert capsys.readouterr().err.startswith("tune: cache_dir: ")


def test_its_text_has_what_the_table_of_the_client_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table(rows=(row(TENSORFLOW, None), row(LITERT, FAR)))
    assert run(monkeypatch, tmp_path, table) == 0
    heading, tensorflow, litert, *_ = capsys.readouterr().out.splitlines()
    assert heading.split()[-2:] == ["max_difference", "same_best"]
    assert tensorflow.split()[-2:] == ["-", "-"]
    assert litert.split()[-2:] == ["5.0e-01", "75%"]
    assert len(heading) == len(tensorflow) == len(litert)


@pytest.mark.parametrize(
    ("of_model", "of_worker", "is_bf16", "measured"),
    [
        ("bf16", "", False, "bf16"),
        ("bf16", "float32", False, "float32"),
        ("float32", "bf16", False, "bf16"),
        ("float32", "", True, "bf16"),
        ("float32", "", False, "float32"),
    ],
)
def test_it_measures_the_precision_that_workers_would_choose(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    of_model: str,
    of_worker: Any,
    *,
    is_bf16: bool,
    measured: str,
) -> None:
    (tmp_path / "model.xml").touch()
    (tmp_path / "model.toml").write_text(
        f"""
name = "colours"
version = "1"
precision = "{of_model}"
file = "model.xml"
input = {{ width = 6, height = 4 }}
output = {{ classes = 2 }}
"""
    )
    seen = []

    def tuned(spec: ModelSpec, *_: object, **__: object) -> Table:
        seen.append(spec.precision)
        return Table()

    monkeypatch.setattr(command, "tuned", tuned)
    settings = WorkerSettings(model=str(tmp_path), precision=of_worker, cache_dir=tmp_path)
    command.tune(settings, is_bf16=is_bf16, is_forced=False)
    assert seen == [measured]


@pytest.mark.parametrize(
    ("settings", "modes"),
    [
        ({}, ["4 x 1", "1 x 4"]),
        ({"processes": 1}, ["4 x 1", "1 x 4"]),
        ({"processes": 2}, ["4 x 1", "1 x 4", "2 x 2"]),
        ({"processes": 1, "inference_threads": 2}, ["4 x 1", "1 x 4", "2 x 2"]),
        ({"inference_threads": 3}, ["4 x 1", "1 x 4", "1 x 3"]),
    ],
)
def test_it_measures_what_a_worker_with_its_settings_would_need(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], modes: list[str]
) -> None:
    for module in (command, table, machine):
        monkeypatch.setattr(module, "usable_cores", lambda: 4)
    assert [str(mode) for mode in command.modes_of(WorkerSettings(**settings))] == modes
