"""The bundled model: prepared once, whatever happens, and right about real photos.

The photos are those in scikit-image's package (those of scikit-learn would
need another package, for two more).
"""

import importlib.util
import io
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from worker.bundled.prepare import prepared
from worker.decode import decode
from worker.engine import Engine
from worker.engines.runtime import tf
from worker.model_directory import load_engine, open_model
from worker.model_spec import ModelError, ModelSpec, NotNow
from worker.model_toml import read_model_directory
from worker.prepared_folder import is_intact

pytestmark = [pytest.mark.model, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the prepared model."""
    path = tmp_path_factory.mktemp("cache")
    prepared(path)
    return path


@pytest.fixture(scope="module")
def spec(cache: Path) -> ModelSpec:
    return open_model("efficientnet-lite0", cache)


@pytest.fixture(scope="module")
def engine(spec: ModelSpec, cache: Path) -> Engine:
    return load_engine(spec, threads=0, cache_dir=cache)


def photos() -> Path:
    # Importing the package itself warns, and warnings are errors here.
    found = importlib.util.find_spec("skimage")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "data"


@pytest.mark.parametrize(
    ("photo", "best"),
    [
        ("coffee.png", (967, "espresso", 0.95)),
        ("camera.png", (872, "tripod", 0.94)),
        ("motorcycle_left.png", (665, "moped", 0.49)),
        ("rocket.jpg", (657, "missile", 0.29)),
        ("chelsea.png", (282, "tiger cat", 0.38)),
    ],
)
def test_photos_are_what_they_are_known_to_be(
    engine: Engine, spec: ModelSpec, photo: str, best: tuple[int, str, float]
) -> None:
    class_id, label, score = best
    data = (photos() / photo).read_bytes()
    image = decode(data, spec.input, max_pixels=10_000_000)
    (scores,) = engine.predict(image[None])
    assert scores.argmax() == class_id
    assert spec.labels[class_id] == label
    assert scores[class_id] == pytest.approx(score, abs=0.02)
    assert scores.sum() == pytest.approx(1, abs=1e-4)


PIXELS = 12_000_000


@pytest.mark.parametrize(
    "photo", ["coffee.png", "camera.png", "motorcycle_left.png", "rocket.jpg", "chelsea.png"]
)
def test_a_large_photo_is_the_same_to_the_model_though_it_is_not_decoded_in_full(
    engine: Engine, spec: ModelSpec, photo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    with Image.open(photos() / photo) as image:
        scale = math.sqrt(PIXELS / (image.width * image.height))
        size = (round(image.width * scale), round(image.height * scale))
        image.convert("RGB").resize(size).save(buffer, "JPEG", quality=92)
    small = decode(buffer.getvalue(), spec.input, max_pixels=2 * PIXELS)
    monkeypatch.setattr("worker.decode.DRAFT_GAP", 1000.0)
    full = decode(buffer.getvalue(), spec.input, max_pixels=2 * PIXELS)
    assert (small != full).any()  # one of them was decoded in full, the other was not
    few, all_ = engine.predict(small[None])[0], engine.predict(full[None])[0]
    assert few.argmax() == all_.argmax()
    assert few.max() == pytest.approx(all_.max(), abs=0.1)


def test_second_worker_finds_it_prepared(cache: Path) -> None:
    model = prepared(cache) / "saved_model.pb"
    before = model.stat().st_mtime_ns
    assert prepared(cache) / "saved_model.pb" == model
    assert model.stat().st_mtime_ns == before


def test_prepared_model_is_a_model_directory_like_any_other(cache: Path, spec: ModelSpec) -> None:
    read = read_model_directory(prepared(cache).parent)
    assert read.model_dump(exclude={"origin"}) == spec.model_dump(exclude={"origin"})


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing", "no manifest", "added"])
def test_damaged_cache_is_noticed(cache: Path, damage: str, tmp_path: Path) -> None:
    original = prepared(cache).parent
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", original, copy], check=True)
    assert is_intact(copy)
    graph = copy / "saved_model" / "saved_model.pb"
    match damage:
        case "truncated":
            os.truncate(graph, graph.stat().st_size // 2)
        case "changed":
            data = bytearray(graph.read_bytes())
            data[len(data) // 2] ^= 1
            graph.write_bytes(data)
        case "missing":
            (copy / "labels.txt").unlink()
        case "no manifest":
            (copy / "manifest.json").unlink()
        case "added":
            (copy / "saved_model" / "assets.txt").touch()
    assert not is_intact(copy)


def test_damaged_cache_is_made_again(tmp_path: Path) -> None:
    graph = prepared(tmp_path) / "saved_model.pb"
    os.truncate(graph, 1000)
    # What a process that was killed while preparing leaves behind.
    partial = graph.parent.parent.with_name(graph.parent.parent.name + ".1f.partial")
    partial.mkdir()
    (partial / "rubbish").touch()

    assert prepared(tmp_path) == graph.parent

    assert is_intact(graph.parent.parent)
    assert not partial.exists()


def test_two_processes_at_once_make_it_once(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from worker.bundled.prepare import prepared;"
        "print(prepared(pathlib.Path(sys.argv[1])))"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outcomes = [worker.communicate(timeout=150) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    paths = {stdout.splitlines()[-1] for stdout, _ in outcomes}
    assert len(paths) == 1
    assert is_intact(Path(paths.pop()).parent)
    said = "".join(stdout + stderr for stdout, stderr in outcomes)
    assert said.count("preparing") == 1


def test_cache_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="WORKER_CACHE_DIR"):
        prepared(tmp_path / "file")


def test_full_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*_: object, **__: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(NotNow, match="No space left on device; set WORKER_CACHE_DIR"):
        prepared(tmp_path)
