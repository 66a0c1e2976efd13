from pathlib import Path

import pytest
from click.testing import CliRunner

from client.cli.app import app


def test_where_no_worker_is_installed_the_command_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.cli.tune.PROGRAM", "a_package_that_is_not_here.tune")
    result = CliRunner().invoke(app, ["tune", "efficientnet-lite0"])
    assert result.exit_code == 1
    assert "run it where workers run" in result.stderr


def test_an_unknown_model_is_the_fault_of_the_input(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["tune", str(tmp_path / "none")])
    assert result.exit_code == 3
