"""The walk-through of `docs/models.md`, up to the point where a worker would start."""

import subprocess
import sys
from pathlib import Path

import pytest

from worker.decode import decode
from worker.model_directory import load_engine, open_model

pytestmark = [pytest.mark.model, pytest.mark.timeout(120)]

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "byo_model.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script of the walk-through leaves."""
    path = tmp_path_factory.mktemp("models")
    done = subprocess.run(
        [sys.executable, SCRIPT, path], check=True, capture_output=True, text=True, timeout=100
    )
    assert f"WORKER_MODEL={path / 'colours-keras'}" in done.stdout
    return path


@pytest.mark.parametrize("name", ["colours-keras", "colours-saved-model"])
def test_model_of_ones_own_knows_its_colours(folder: Path, name: str) -> None:
    spec = open_model(str(folder / name), folder / "cache")
    engine = load_engine(spec, threads=0, cache_dir=folder / "cache")
    engine.warm_up([1, spec.default_batch_size])
    assert spec.name == name
    for colour in ("red", "green", "blue"):
        data = (folder / f"{colour}.png").read_bytes()
        image = decode(data, spec.input, max_pixels=1_000_000)
        (scores,) = engine.predict(image[None])
        assert spec.labels[int(scores.argmax())] == colour
        assert scores.max() > 0.8
