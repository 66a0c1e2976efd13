"""The file that probes of a worker look at."""

from pathlib import Path

import structlog

from worker.ready_file import ReadyFile


def test_it_is_there_from_the_first_job_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    path.touch()  # left by a process that was killed
    file = ReadyFile(str(path))
    with file.gone_before_and_after():
        assert not path.exists()
        file.make()
        assert path.exists()
        file.make()  # by another process of the same worker
    assert not path.exists()


def test_without_a_path_there_is_none() -> None:
    with ReadyFile("").gone_before_and_after():
        ReadyFile("").make()


def test_a_place_that_cannot_be_written_is_told_and_stops_nothing(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        ReadyFile(str(tmp_path / "nowhere" / "ready")).make()
    assert [line["log_level"] for line in lines] == ["error"]
