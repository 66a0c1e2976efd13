"""Processes that compute know of each other, and those that are gone are forgotten."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from worker.computing import Computing

SAY = """
import sys
from pathlib import Path
from worker.computing import Computing

computing = Computing(Path(sys.argv[1]))
for line in sys.stdin:
    print(getattr(computing, line.strip())(), flush=True)
"""


class Other:
    """Another process."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", SAY, str(path)]
        self._process: subprocess.Popen[str] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self) -> bool:
        return self._asked("begin") == "True"

    def end(self) -> None:
        assert self._asked("end") == "None"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _asked(self, what: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[[], Other]]:
    started: list[Other] = []

    def start() -> Other:
        started.append(Other(tmp_path / "computing"))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def test_one_is_alone_until_another_computes(other: Callable[[], Other]) -> None:
    first, second = other(), other()
    assert first.begin()
    assert not second.begin()
    first.end()
    # Whoever began while it was not alone counts as well.
    assert not first.begin()
    first.end()
    second.end()
    assert first.begin()


def test_of_several_none_is_alone(other: Callable[[], Other]) -> None:
    workers = [other() for _ in range(3)]
    assert [each.begin() for each in workers] == [True, False, False]
    workers[0].end()
    assert not workers[0].begin()


def test_one_that_was_killed_while_it_computed_is_forgotten(other: Callable[[], Other]) -> None:
    first, second = other(), other()
    assert first.begin()
    first.kill()
    assert second.begin()


def test_one_without_the_file_is_never_alone_and_disturbs_nobody(
    tmp_path: Path, other: Callable[[], Other]
) -> None:
    second = other()
    assert second.begin()
    second.end()
    (tmp_path / "link").symlink_to(tmp_path / "computing")
    computing = Computing(tmp_path / "link")  # what somebody else may have laid there
    assert not computing.begin()
    assert second.begin()
    computing.end()


def test_what_goes_wrong_with_the_locks_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: Any) -> Any:
        raise OSError(errno.ENOLCK, "no locks available")

    computing = Computing(tmp_path / "computing")
    assert computing.begin()
    monkeypatch.setattr("fcntl.lockf", no_locks)
    computing.end()
    assert not computing.begin()


def test_the_file_does_not_look_old(tmp_path: Path) -> None:
    path = tmp_path / "computing"
    computing = Computing(path)
    os.utime(path, (0, 0))
    computing.begin()
    assert path.stat().st_mtime > 0


def test_there_may_be_no_directory_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Any:
        raise FileNotFoundError("no usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    assert not Computing().begin()
