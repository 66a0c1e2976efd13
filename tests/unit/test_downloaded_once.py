"""Workers that start at once do not read each other's half of a download."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from worker.engines.downloaded_once import downloaded_once

LIMIT_S = 20


class Weights:
    """A download like that of Keras: what is there is taken as it is."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "weights"
        self.is_half = threading.Event()
        self.may_go_on = threading.Event()
        self.downloads = 0

    def build(self) -> str:
        if not self.file.exists():
            self.downloads += 1
            self.file.write_text("ha")
            self.is_half.set()
            assert self.may_go_on.wait(LIMIT_S)
            self.file.write_text("half and half")
        return self.file.read_text()


def test_whoever_comes_meanwhile_waits_for_the_whole(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(downloaded_once, tmp_path, "weights", weights.build)
        assert weights.is_half.wait(LIMIT_S)
        second = threads.submit(downloaded_once, tmp_path, "weights", weights.build)
        # It would be over at once if it did not wait.
        with pytest.raises(TimeoutError):
            second.result(0.3)
        weights.may_go_on.set()
        assert (first.result(LIMIT_S), second.result(LIMIT_S)) == ("half and half",) * 2
    assert weights.downloads == 1


def test_nobody_waits_once_it_was_downloaded(tmp_path: Path) -> None:
    assert downloaded_once(tmp_path, "weights", lambda: "first") == "first"
    # Inside of another's turn: it would never end if it waited for that.
    inside = downloaded_once(
        tmp_path, "weights", lambda: downloaded_once(tmp_path, "weights", lambda: "inner")
    )
    assert inside == "inner"


def test_a_download_that_failed_is_tried_again(tmp_path: Path) -> None:
    def fail() -> str:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        downloaded_once(tmp_path, "weights", fail)
    assert downloaded_once(tmp_path, "weights", lambda: "second") == "second"


def test_a_cache_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    # A file in the place of the folder: root may write to every folder.
    place = tmp_path / "place"
    place.touch()
    assert downloaded_once(place / "models", "weights", lambda: "read") == "read"
