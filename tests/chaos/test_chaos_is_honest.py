"""The chaos suite is worth something only if it can fail."""

import subprocess
import sys

from tests.processes import ROOT

ROW = "kill-after-claim"


def chaos(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos", ROW, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def test_a_row_is_green_when_promises_are_kept() -> None:
    kept = chaos()
    assert kept.returncode == 0, kept.stdout + kept.stderr
    assert "lost 0, duplicated 0" in kept.stdout


def test_a_row_is_red_when_workers_acknowledge_before_they_answer() -> None:
    broken = chaos("--break", "ack-first")
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "of the accepted have no outcome" in broken.stdout


def test_a_row_is_red_when_workers_publish_twice() -> None:
    broken = chaos("--break", "publish-twice")
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "replies too many" in broken.stdout
