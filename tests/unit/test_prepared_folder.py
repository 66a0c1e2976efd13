"""What a failed attempt leaves in the cache."""

from pathlib import Path

import pytest

from worker.prepared_folder import is_intact, make_once


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_attempt_leaves_nothing_that_fills_the_disk(
    tmp_path: Path, error: BaseException
) -> None:
    folder = tmp_path / "model"

    def fail(partial: Path) -> None:
        (partial / "graph").write_bytes(b"half of it")
        raise error

    with pytest.raises(type(error)):
        make_once(folder, fail, what="a model")
    assert [path.name for path in tmp_path.iterdir()] == ["model.lock"]

    make_once(folder, lambda partial: (partial / "graph").touch(), what="a model")
    assert is_intact(folder)
