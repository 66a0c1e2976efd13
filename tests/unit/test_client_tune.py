import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from client.cli.app import app
from client.cli.tune import UNUSABLE, USAGE
from worker.tune import __main__ as program


def test_where_no_worker_is_installed_the_command_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.cli.tune.PROGRAM", "a_package_that_is_not_here.tune")
    result = CliRunner().invoke(app, ["tune", "efficientnet-lite0"])
    assert result.exit_code == 1
    assert "run it where workers run" in result.stderr


def test_a_report_without_an_engine_that_can_be_used_is_printed_and_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failure = {"engine": "litert", "reason": "it crashed"}
    report = json.dumps({"rows": [], "failures": [failure]}).encode()
    done = subprocess.CompletedProcess([], UNUSABLE, report)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    result = CliRunner().invoke(app, ["tune", "efficientnet-lite0"])
    assert result.exit_code == 1
    assert "litert cannot be used: it crashed" in result.stdout


def test_an_unknown_model_is_the_fault_of_the_input(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["tune", str(tmp_path / "none")])
    assert result.exit_code == 3


def test_the_command_and_its_program_agree_on_exit_codes() -> None:
    assert (USAGE, UNUSABLE) == (program.REFUSED, program.UNUSABLE)
