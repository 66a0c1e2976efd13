"""What becomes of the folders with the figures of several processes."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from telemetry.metrics_folder import LEFT_S, PREFIX, made

HOLDS_ONE = """
import signal
from telemetry.metrics_folder import made

with made() as folder:
    (folder / "1-0.json").write_text("{}")
    print(folder, flush=True)
    signal.pause()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def make_old(folder: Path) -> None:
    then = time.time() - LEFT_S - 1
    os.utime(folder, (then, then))


def names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


def test_it_is_there_as_long_as_it_is_used(place: Path) -> None:
    with made() as folder:
        assert [folder] == list(place.iterdir())
    assert names(place) == set()


def test_one_that_a_killed_process_left_is_removed(place: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_ONE],
        env={**os.environ, "TMPDIR": str(place)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            folder = Path(process.stdout.readline().strip())
            make_old(folder)
            with made():
                assert folder.exists()
        finally:
            process.send_signal(signal.SIGKILL)
    with made() as own:
        assert names(place) == {own.name}


def test_nothing_else_is_removed(place: Path) -> None:
    elsewhere = place / "elsewhere"
    for folder in (place / f"{PREFIX}young", place / "other", elsewhere):
        folder.mkdir()
    (elsewhere / "file").touch()
    (place / f"{PREFIX}link").symlink_to(elsewhere)
    (place / f"{PREFIX}file").touch()
    for path in (place / "other", elsewhere, place / f"{PREFIX}file"):
        make_old(path)
    before = names(place)
    with made() as own:
        assert names(place) == before | {own.name}
    assert (elsewhere / "file").exists()
