"""Processes that try engines and convert models, from whichever folder they are started."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worker.engines import conversion
from worker.engines.child import command
from worker.model_spec import InputRule, ModelFile, ModelSpec

TRIES = """
from pathlib import Path
from worker.model_spec import InputRule, ModelSpec, NoWeights
from worker.tune.trial import Trial, TrialFailed

spec = ModelSpec(
    name="none", version="1", engine="null", origin=NoWeights(), labels=("a",),
    input=InputRule(width=1, height=1),
)
with Trial(spec, processes=1, threads=1, cache_dir=Path(".")) as trial:
    try:
        trial.load()
    except TrialFailed as error:
        print(error)
"""


def test_a_trial_beside_a_file_that_is_called_like_ours_runs_ours(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("raise SystemExit(7)")
    done = subprocess.run(
        [sys.executable, "-P", "-c", TRIES],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "none: the engine null cannot be loaded as it is\n"


def test_a_conversion_is_started_in_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    def popen(arguments: list[str], **_: Any) -> None:
        started.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr("worker.engines.installed.version_of", lambda _: "1")
    monkeypatch.setattr(subprocess, "Popen", popen)
    spec = ModelSpec(
        name="small",
        version="1",
        origin=ModelFile(path=tmp_path / "model.keras"),
        labels=("a",),
        input=InputRule(width=1, height=1),
    )
    with pytest.raises(KeyboardInterrupt):
        conversion.converted(spec, "litert", tmp_path)
    assert started == [command("worker.engines.convert")]
