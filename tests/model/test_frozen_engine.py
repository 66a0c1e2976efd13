"""TensorFlow's C library: the same scores as in Python, and Python wherever it does not do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from worker.engines import conversion, loading, tensorflow_library
from worker.engines.conversion import FILES, WHY_NOT, Converted, converted
from worker.engines.convert import convert, is_passing
from worker.engines.frozen_engine import FrozenEngine
from worker.engines.installed import version_of
from worker.engines.loading import in_python
from worker.engines.quiet_import import LOG_LEVEL
from worker.engines.runtime import keras, tf
from worker.engines.tensorflow_library import GraphSession
from worker.model_directory import load_engine
from worker.model_spec import InputRule, ModelChanged, ModelError, ModelFile, ModelSpec, PixelRule

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(120),
    # Keras, when it saves weights.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

IMAGES = np.random.default_rng(5).integers(0, 256, (9, 24, 32, 3), np.uint8)


def spec_of(path: Path, **changes: Any) -> ModelSpec:
    fields: dict[str, Any] = {
        "name": "small",
        "version": "1",
        "origin": ModelFile(path=path),
        "labels": ("a", "b", "c", "d"),
        "input": InputRule(width=32, height=24),
        "pixels": PixelRule(mean=(120, 110, 100), scale=(60, 50, 70), order="bgr"),
        "softmax": True,
    }
    return ModelSpec(**(fields | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file, and a cache that fills."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((24, 32, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Flatten()(x)
    path = tmp_path_factory.mktemp("model")
    keras.Model(inputs, keras.layers.Dense(4)(x)).save(path / "model.keras")
    return path


@pytest.fixture(scope="module")
def frozen(folder: Path) -> Converted:
    return converted(spec_of(folder / "model.keras"), "tensorflow", folder / "cache")


def table_model(folder: Path) -> Path:
    """A model with a look-up table, which cannot be frozen."""
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer([0, 1], [0.0, 1.0], tf.int32, tf.float32), 0.5
    )
    module = tf.Module()
    module.table = table
    module.__call__ = tf.function(
        lambda pixels: table.lookup(tf.cast(tf.reduce_mean(pixels, [1, 2]), tf.int32)),
        input_signature=[tf.TensorSpec((None, 24, 32, 3), tf.float32)],
    )
    tf.saved_model.save(
        module, str(folder / "saved"), signatures=module.__call__.get_concrete_function()
    )
    return folder / "saved"


def test_scores_are_those_of_python(folder: Path, frozen: Converted) -> None:
    engine = FrozenEngine(frozen.spec, frozen.path, threads=1)
    reference = in_python(spec_of(folder / "model.keras"), 1)
    engine.warm_up([1, 4])
    for size in (1, 3, 9):
        scores = engine.predict(IMAGES[:size])
        assert scores.dtype == np.float32
        assert scores == pytest.approx(reference.predict(IMAGES[:size]), abs=1e-6)


def test_an_answer_stays_when_the_images_and_the_engine_go_on(frozen: Converted) -> None:
    engine = FrozenEngine(frozen.spec, frozen.path, threads=1)
    images = IMAGES[:2].copy()
    first = engine.predict(images)
    kept = first.copy()
    images[:] = IMAGES[2:4]
    assert not np.array_equal(engine.predict(images), kept)
    assert np.array_equal(first, kept)


def test_images_need_not_lie_together(frozen: Converted) -> None:
    engine = FrozenEngine(frozen.spec, frozen.path, threads=1)
    assert np.array_equal(engine.predict(IMAGES[::2]), engine.predict(IMAGES[::2].copy()))


def test_a_later_start_imports_no_tensorflow_and_says_nothing(
    folder: Path, frozen: Converted
) -> None:
    program = f"""
import sys, pathlib
from worker.model_directory import load_engine
from worker.model_spec import ModelSpec
spec = ModelSpec.model_validate_json({spec_of(folder / "model.keras").model_dump_json()!r})
engine = load_engine(spec, threads=1, cache_dir=pathlib.Path({str(folder / "cache")!r}))
engine.warm_up([1, 4])
print(sorted(sys.modules.keys() & {{"tensorflow", "keras"}}))
"""
    before = frozen.path.stat().st_mtime_ns
    done = subprocess.run(
        [sys.executable, "-c", program],
        # The import above has set it for this process.
        env={name: value for name, value in os.environ.items() if name != LOG_LEVEL},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert frozen.path.stat().st_mtime_ns == before


def test_a_model_that_cannot_be_frozen_is_run_in_python_and_tried_once(tmp_path: Path) -> None:
    spec = spec_of(table_model(tmp_path), labels=("r", "g", "b"), pixels=PixelRule(), softmax=False)
    images = np.broadcast_to(np.array([0, 1, 9], np.uint8), (1, 24, 32, 3))
    seen = []
    for _ in range(2):
        with capture_logs() as lines:
            engine = load_engine(spec, threads=0, cache_dir=tmp_path / "cache")
        assert engine.predict(images).tolist() == [[0, 1, 0.5]]
        assert "it cannot be frozen: it has state that is not a variable" in str(lines)
        (kept,) = (tmp_path / "cache").glob(f"*/{WHY_NOT}")
        seen.append(kept.stat().st_mtime_ns)
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(28, "full"), tf.errors.ResourceExhaustedError(None, None, "")]
)
def test_a_lack_of_memory_or_disk_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(_: object) -> None:
        raise error

    monkeypatch.setattr("worker.engines.scoring_graph.frozen", fails)
    with pytest.raises(type(error)):
        convert(spec_of(folder / "model.keras"), "tensorflow", tmp_path)
    assert not (tmp_path / WHY_NOT).exists()


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_a_full_disk_is_not_the_fault_of_openvino(folder: Path, tmp_path: Path, name: str) -> None:
    if version_of("openvino") is None:
        pytest.skip("openvino is not installed: requirements-engines.txt")
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"{tmp_path}/model\.xml cannot be written: ") as raised:
        convert(spec_of(folder / "model.keras"), "openvino", tmp_path)
    assert is_passing(raised.value)


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_that_changes_while_it_is_converted_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    path = tmp_path / "model.keras"
    shutil.copy(folder / "model.keras", path)

    def convert_another(_: ModelSpec, _target: str, partial: Path) -> None:
        path.write_bytes(b"another one")
        if fails:
            raise ModelError("half of it was there")
        (partial / FILES["tensorflow"]).write_bytes(b"its graph")

    monkeypatch.setattr(conversion, "_convert", convert_another)
    # Nor is it served in Python: labels and version may be those of the old one.
    with pytest.raises(ModelChanged, match=r"^small: the model was changed during the start"):
        load_engine(spec_of(path), threads=0, cache_dir=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_other_scores_than_in_python_are_not_served(
    folder: Path, frozen: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(folder / "model.keras")
    before = load_engine(spec, threads=0, cache_dir=folder / "cache").predict(IMAGES)
    monkeypatch.setattr(FrozenEngine, "predict", lambda _, images: np.full((len(images), 4), 0.25))
    engine = load_engine(spec, threads=0, cache_dir=folder / "cache")
    assert frozen.path.exists()
    assert engine.predict(IMAGES) == pytest.approx(before, abs=1e-6)


def test_a_file_that_cannot_be_read_is_the_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "model.keras"
    read = Path.read_bytes

    def refuse(file: Path) -> bytes:
        if file == path:
            raise PermissionError(13, "Permission denied", str(path))
        return read(file)

    # Whoever is root may read anything.
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ModelError, match=rf"^{path}: Permission denied$"):
        load_engine(spec_of(path), threads=0)


def test_errors_are_those_of_python(folder: Path, tmp_path: Path) -> None:
    spec = spec_of(folder / "model.keras", labels=("a", "b"))
    with pytest.raises(ModelError, match=r"^small: returns \(2, 4\) for 2 images; 2 labels need"):
        load_engine(spec, threads=0, cache_dir=tmp_path)
    assert not list(tmp_path.glob(f"*/{FILES['tensorflow']}"))


def test_a_cache_that_cannot_be_written_is_done_without(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine = load_engine(spec_of(folder / "model.keras"), threads=0, cache_dir=tmp_path / "file")
    assert engine.predict(IMAGES).shape == (9, 4)


def test_a_package_with_another_library_is_used_from_python(
    folder: Path, frozen: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> object:
        raise OSError("the package has no C library")

    used: list[ModelSpec] = []

    def noted(spec: ModelSpec, threads: int) -> object:
        used.append(spec)
        return in_python(spec, threads)

    monkeypatch.setattr(tensorflow_library, "_load", missing)
    monkeypatch.setattr(loading, "in_python", noted)
    spec = spec_of(folder / "model.keras")
    engine = load_engine(spec, threads=0, cache_dir=folder / "cache")
    assert frozen.path.exists()
    assert used == [spec]
    assert engine.predict(IMAGES).shape == (9, 4)


@pytest.mark.parametrize("graph", [b"no graph", tf.Graph().as_graph_def().SerializeToString()])
def test_another_graph_is_refused(graph: bytes) -> None:
    with pytest.raises(RuntimeError, match=r"GraphDef|has no 'images'"):
        GraphSession(graph, threads=1)


def test_images_of_another_size_are_an_error(frozen: Converted) -> None:
    engine = FrozenEngine(frozen.spec, frozen.path, threads=1)
    with pytest.raises(RuntimeError, match=r"shape|size|Matrix"):
        engine.predict(IMAGES[:, :20])
    assert engine.predict(IMAGES).shape == (9, 4)


@pytest.mark.parametrize(("threads", "limits"), [(0, (0, 0)), (3, (3, 1)), (500, (127, 1))])
def test_settings_are_what_tensorflow_reads(threads: int, limits: tuple[int, int]) -> None:
    read = tf.compat.v1.ConfigProto.FromString(tensorflow_library._settings(threads))
    assert (read.intra_op_parallelism_threads, read.inter_op_parallelism_threads) == limits
    assert read.allow_soft_placement
    assert read.experimental.optimize_for_static_graph
    assert read.experimental.disable_output_partition_graphs
