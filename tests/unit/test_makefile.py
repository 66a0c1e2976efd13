"""What `make` does with `.venv`, and what it leaves alone."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import leftovers

ROOT = Path(__file__).parents[2]

# In the place of Python: makes an environment in no time.
PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p .venv/bin && ln -s "$0" .venv/bin/python && touch .venv/made-anew
fi
"""
STAMPS = ("client", "run", "engines", "tracing", "dev")


class Checkout:
    """A folder with the Makefile, and a `.venv` in which everything is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = folder / ".venv"
        (self.venv / "bin").mkdir(parents=True)
        shutil.copy(ROOT / "Makefile", folder)
        for file in (*ROOT.glob("*.txt"), ROOT / "pyproject.toml"):
            shutil.copy(file, folder)
        for file in ROOT.glob("*/requirements.txt"):
            (folder / file.parent.name).mkdir()
            shutil.copy(file, folder / file.parent.name)
        self.python = folder / "python"
        self.python.write_text(PYTHON)
        self.python.chmod(0o700)
        (self.venv / "bin" / "python").symlink_to(self.python)
        for name in STAMPS:
            (self.venv / f".installed-{name}").touch()
        self.made_at(self.venv)

    def made_at(self, place: Path) -> None:
        """Let `.venv` remember where it was made."""
        (self.venv / "pyvenv.cfg").write_text(f"command = /bin/python3 -m venv {place}\n")

    def make(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        # The tests may have been started by a make of their own.
        inherited = {name: os.environ[name] for name in os.environ if not name.startswith("MAKE")}
        return subprocess.run(
            ["make", f"PYTHON={self.python}", *words],
            cwd=self.folder,
            env={**inherited, **environment},
            check=False,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "check out")


def test_an_environment_that_is_in_its_place_stays(checkout: Checkout) -> None:
    assert checkout.make("status").returncode == 0
    assert not (checkout.venv / "made-anew").exists()


@pytest.mark.parametrize("by", ["move", "copy"])
def test_an_environment_that_was_made_elsewhere_is_made_anew(checkout: Checkout, by: str) -> None:
    before = checkout.folder
    after = before.with_name("another one")
    if by == "move":
        before.rename(after)
    else:
        shutil.copytree(before, after, symlinks=True)
    checkout.folder, checkout.python = after, after / "python"
    made = checkout.make("status")
    assert made.returncode == 0, made.stderr
    assert "was made at another place" in made.stdout
    assert "Installing requirements-client.txt" in made.stdout
    assert (after / ".venv" / "made-anew").exists()
    # What else was installed is gone with it.
    assert not (after / ".venv" / ".installed-dev").exists()
    assert (before / ".venv" / ".installed-dev").exists() == (by == "copy")


def test_an_environment_behind_a_link_stays(checkout: Checkout, tmp_path: Path) -> None:
    checkout.venv.rename(tmp_path / "shared")
    checkout.venv.symlink_to(tmp_path / "shared")
    checkout.made_at(tmp_path / "shared")
    assert checkout.make("status").returncode == 0
    assert not (checkout.venv / "made-anew").exists()


def test_our_code_is_found_also_where_python_is_told_to_look_in_no_folder(
    checkout: Checkout,
) -> None:
    use_real_python(checkout)
    (checkout.folder / "deploy").mkdir()
    (checkout.folder / "deploy" / "__main__.py").write_text("print('found')")
    assert checkout.make("status", PYTHONSAFEPATH="1", PYTHONPATH="").stdout == "found\n"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Path]:
    """Run what looks like a service; return the folder of its state."""
    state = (tmp_path / "state").resolve()
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        env={**os.environ, leftovers.MARK: str(state)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield state
    finally:
        process.kill()
        process.communicate()


def test_nothing_that_runs_is_cleaned_away(checkout: Checkout, service: Path) -> None:
    use_real_python(checkout)
    refused = checkout.make("clean", PYTHONPATH=str(ROOT), DESPACHO_STATE=str(service))
    assert refused.returncode != 0
    assert "make down first" in refused.stderr
    assert checkout.venv.exists()


def test_what_was_started_once_is_cleaned_away(checkout: Checkout, tmp_path: Path) -> None:
    use_real_python(checkout)
    state = tmp_path / "state"
    state.mkdir()
    (state / "mode").write_text("local\n")
    cleaned = checkout.make("clean", PYTHONPATH=str(ROOT), DESPACHO_STATE=str(state))
    assert cleaned.returncode == 0, cleaned.stderr
    assert not checkout.venv.exists()


def use_real_python(checkout: Checkout) -> None:
    python = checkout.venv / "bin" / "python"
    python.unlink()
    python.symlink_to(sys.executable)


def test_foreign_code_is_not_checked_where_there_is_no_git(checkout: Checkout) -> None:
    foreign = checkout.folder / ".venv-clients" / "kserve" / "foreign.py"
    for file in (foreign, checkout.folder / "own.py"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    ruff = [sys.executable, "-m", "ruff", "check", "--show-files"]
    files = subprocess.run(ruff, cwd=checkout.folder, check=True, capture_output=True, text=True)
    assert "own.py" in files.stdout
    assert "foreign.py" not in files.stdout
