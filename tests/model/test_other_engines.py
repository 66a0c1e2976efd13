"""LiteRT and OpenVINO, with models that are converted and with files of their own."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.computing import Computing
from worker.engine import Engine, UInt8Array
from worker.engines import all_cores, conversion, loading
from worker.engines.conversion import Target
from worker.engines.installed import version_of
from worker.engines.runtime import keras, tf
from worker.model_directory import load_engine
from worker.model_spec import InputRule, ModelError, ModelFile, ModelSpec, PixelRule
from worker.prepared_folder import MANIFEST, is_intact
from worker.tune.choice import choose
from worker.tune.table import Candidate, Mode, Row, Table
from worker.tune.trial import Trial

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(120),
    # Keras, when it saves weights.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

ENGINES: tuple[Target, ...] = ("litert", "openvino")
HEIGHT, WIDTH = 24, 32
IMAGES: UInt8Array = np.random.default_rng(7).integers(
    0, 256, (21, HEIGHT, WIDTH, 3), dtype=np.uint8
)


@pytest.fixture(autouse=True, params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Target:
    """Each test runs with each of them, as far as they are installed."""
    name: Target = request.param
    if version_of(name) is None:
        pytest.skip(f"{name} is not installed: requirements-engines.txt")
    return name


def network() -> Any:
    """A small model with an answer of its own to every image."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((HEIGHT, WIDTH, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    x = keras.layers.DepthwiseConv2D(3, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(4)(x))


@pytest.fixture(scope="module")
def model() -> Any:
    return network()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: Any) -> Path:
    """A model file, and a cache that fills."""
    path = tmp_path_factory.mktemp("model")
    model.save(path / "model.keras")
    return path


def spec_of(path: Path, engine: Target, **changes: Any) -> ModelSpec:
    fields: dict[str, Any] = {
        "name": "small",
        "version": "1",
        "engine": engine,
        "origin": ModelFile(path=path),
        "labels": ("a", "b", "c", "d"),
        "input": InputRule(width=WIDTH, height=HEIGHT),
        "pixels": PixelRule(mean=(120, 110, 100), scale=(60, 50, 70), order="bgr"),
        "softmax": True,
    }
    return ModelSpec(**(fields | changes))


def expected(model: Any, images: UInt8Array) -> Any:
    """What TensorFlow makes of it, scaled by hand."""
    pixels = (images.astype(np.float32) - [120, 110, 100]) / [60, 50, 70]
    return tf.nn.softmax(model(pixels[..., ::-1].astype(np.float32))).numpy()


def test_a_converted_model_scores_as_tensorflow_does(
    folder: Path, model: Any, engine: Target
) -> None:
    spec = spec_of(folder / "model.keras", engine)
    loaded = load_engine(spec, threads=1, cache_dir=folder / "cache")
    loaded.warm_up([1, 8])
    for size in (1, 3, 8, 21):
        scores = loaded.predict(IMAGES[:size])
        assert scores.dtype == np.float32
        assert scores == pytest.approx(expected(model, IMAGES[:size]), abs=1e-5)


def test_one_image_on_all_cores_has_the_same_scores(
    folder: Path, model: Any, engine: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(folder / "model.keras", engine)
    cache_dir = folder / "cache"
    made: list[Engine | None] = []

    def noted(make: Callable[[], Engine]) -> Engine | None:
        made.append(all_cores.wide_engine(make))
        return made[-1]

    monkeypatch.setattr(loading, "wide_engine", noted)
    loaded = load_engine(spec, threads=1, alone_threads=2, cache_dir=cache_dir)
    assert len(made) == 1
    assert made[0] is not None
    load_engine(spec, threads=2, alone_threads=2, cache_dir=cache_dir)
    assert len(made) == 1  # that would be the same engine once more
    for is_alone in (True, False):
        monkeypatch.setattr(Computing, "begin", lambda _, alone=is_alone: alone)
        for size in (1, 3):
            scores = loaded.predict(IMAGES[:size])
            assert scores == pytest.approx(expected(model, IMAGES[:size]), abs=1e-5)


def test_an_answer_stays_when_the_images_and_the_engine_go_on(folder: Path, engine: Target) -> None:
    spec = spec_of(folder / "model.keras", engine)
    loaded = load_engine(spec, threads=1, cache_dir=folder / "cache")
    images = IMAGES[:2].copy()
    first = loaded.predict(images)
    kept = first.copy()
    images[:] = IMAGES[2:4]
    second = loaded.predict(images)
    assert np.array_equal(first, kept)
    assert not np.array_equal(second, kept)


def test_a_later_start_imports_no_tensorflow(folder: Path, engine: Target) -> None:
    spec = spec_of(folder / "model.keras", engine)
    made = conversion.converted(spec, engine, folder / "cache").path
    before = made.stat()
    program = f"""
import sys, pathlib
from worker.model_directory import load_engine
from worker.model_spec import ModelSpec
spec = ModelSpec.model_validate_json({spec.model_dump_json()!r})
engine = load_engine(spec, threads=1, cache_dir=pathlib.Path({str(folder / "cache")!r}))
engine.warm_up([1, 4])
reporting = sys.modules.get("openvino_telemetry")
print(sorted(sys.modules.keys() & {{"tensorflow", "keras", "flask"}}), reporting)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[] None"
    assert made.stat() == before or made.stat().st_mtime_ns == before.st_mtime_ns


def copied(made: conversion.Converted, cache: Path) -> Path:
    """A cache with a copy of the converted model, to be spoiled."""
    copy = cache / made.folder.name
    shutil.copytree(made.folder, copy)
    return copy


def test_a_converted_model_that_was_altered_is_made_again(
    folder: Path, engine: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(folder / "model.keras", engine)
    made = conversion.converted(spec, engine, folder / "cache")
    copy = copied(made, tmp_path)
    reference = copy / conversion.REFERENCE
    reference.write_bytes(reference.read_bytes()[:-1] + b"?")
    assert not is_intact(copy)
    # What converts takes seconds, and has been tried above.
    monkeypatch.setattr(
        conversion,
        "_convert",
        lambda *order: shutil.copytree(made.folder, order[-1], dirs_exist_ok=True),
    )
    conversion.converted(spec, engine, tmp_path)
    assert is_intact(copy)


def test_a_model_that_disagrees_with_tensorflow_is_refused(
    folder: Path, engine: Target, model: Any, tmp_path: Path
) -> None:
    spec = spec_of(folder / "model.keras", engine)
    made = conversion.converted(spec, engine, folder / "cache")
    # As if the conversion had made a mistake: the file is whole, its weights are others.
    copy = copied(made, tmp_path)
    suffix = ".tflite" if engine == "litert" else ".bin"
    (weights,) = copy.glob(f"*{suffix}")
    data = weights.read_bytes()
    bias = model.layers[-1].get_weights()[0].astype("<f4")
    place = _place_of(data, bias)
    weights.write_bytes(data[:place] + bytes(bias.nbytes) + data[place + bias.nbytes :])
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest[weights.name] = hashlib.sha256(weights.read_bytes()).hexdigest()
    (copy / MANIFEST).write_text(json.dumps(manifest))
    assert is_intact(copy)
    with pytest.raises(ModelError, match=f"{engine} disagrees with TensorFlow: scores differ by"):
        load_engine(spec, threads=1, cache_dir=tmp_path)
    with Trial(spec, processes=1, threads=1, cache_dir=tmp_path) as trial:
        found = trial.load()
        rate = trial.images_per_s(1, 0.01)
    assert found is not None
    assert found.max_difference > 0.01
    assert not found.is_within_tolerance("bf16")
    mode = Mode(processes=1, threads=1)
    candidate = Candidate(engine=engine, version="1")
    row = Row(candidate=candidate, mode=mode, batch_size=1, images_per_s=rate, agreement=found)
    table = Table(rows=(row,))
    assert choose(table, mode, max_batch_size=16, precision="float32") is None


def _place_of(data: bytes, weights: Any) -> int:
    """Where weights are in a file, in one order of their axes or the other."""
    for candidate in (weights, weights.T):
        place = data.find(np.ascontiguousarray(candidate).tobytes())
        if place >= 0:
            return place
    raise AssertionError("the weights are not in the file")


def own_file(folder: Path, engine: Target) -> Path:
    """A file of the engine itself, whose input is floats and whose output is logits."""
    if engine == "litert":
        return lite(folder, network(), lambda _: None)
    from worker.engines.openvino import ov  # noqa: PLC0415 - may not be installed

    network().export(folder / "saved", verbose=False)
    model = ov.Core().read_model(folder / "saved")
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    return folder / "model.xml"


def lite(folder: Path, model: Any, change: Callable[[Any], None]) -> Path:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    change(converter)
    path = folder / "model.tflite"
    path.write_bytes(converter.convert())
    return path


def test_a_file_of_its_own_is_scaled_around_it(tmp_path: Path, model: Any, engine: Target) -> None:
    spec = spec_of(own_file(tmp_path, engine), engine)
    loaded = load_engine(spec, threads=1, cache_dir=tmp_path / "cache")
    assert loaded.predict(IMAGES[:3]) == pytest.approx(expected(model, IMAGES[:3]), abs=1e-5)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", [b"", b"\x55" * 100_000])
def test_a_file_that_is_overwritten_changes_no_answer(
    tmp_path: Path,
    model: Any,
    engine: Target,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
) -> None:
    path = own_file(tmp_path, engine)
    made = all_cores.wide_engine

    def late(make: Callable[[], Engine]) -> Engine | None:
        """Overwrite the files once the engine is loaded, and before one with all cores is."""
        for file in tmp_path.glob("model.*"):
            file.write_bytes(content)
        return made(make)

    monkeypatch.setattr(loading, "wide_engine", late)
    loaded = load_engine(spec_of(path, engine), threads=1, alone_threads=2)
    assert not path.read_bytes().strip(b"\x55")
    loaded.warm_up([2])  # after the files have changed
    for is_alone in (True, False):
        monkeypatch.setattr(Computing, "begin", lambda _, alone=is_alone: alone)
        for size in (1, 2, 3):
            scores = loaded.predict(IMAGES[:size])
            assert scores == pytest.approx(expected(model, IMAGES[:size]), abs=1e-5)


def test_logits_and_wrong_sizes_are_refused(tmp_path: Path, engine: Target) -> None:
    path = own_file(tmp_path, engine)
    with pytest.raises(ModelError, match="softmax = true"):
        load_engine(spec_of(path, engine, softmax=False), threads=1)
    with pytest.raises(ModelError, match="the model takes"):
        load_engine(spec_of(path, engine, input=InputRule(width=9, height=9)), threads=1)
    with pytest.raises(ModelError, match="2 labels need"):
        load_engine(spec_of(path, engine, labels=("a", "b")), threads=1)


def test_a_damaged_file_is_an_error(tmp_path: Path, engine: Target) -> None:
    path = tmp_path / ("model.tflite" if engine == "litert" else "model.xml")
    for content in (b"rubbish", b""):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=f"{path.name}: cannot be loaded"):
            load_engine(spec_of(path, engine), threads=1)


def test_a_file_that_cannot_be_read_is_the_reason(
    tmp_path: Path, engine: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ("model.tflite" if engine == "litert" else "model.xml")
    path.touch()
    read = Path.read_bytes

    def refuse(file: Path) -> bytes:
        if file == path:
            raise PermissionError(13, "Permission denied", str(path))
        return read(file)

    # Whoever is root may read anything.
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ModelError, match=rf"^{path}: Permission denied$"):
        load_engine(spec_of(path, engine), threads=0)


def test_channels_may_come_first(tmp_path: Path, engine: Target) -> None:
    if engine != "openvino":
        pytest.skip("only OpenVINO's files may have them first")
    from worker.engines.openvino import ov  # noqa: PLC0415 - may not be installed

    ops = ov.opset13
    pixels = ops.parameter([-1, 3, HEIGHT, WIDTH], np.float32, name="pixels")
    means = ops.reduce_mean(pixels, ops.constant([2, 3]), keep_dims=False)
    ov.save_model(ov.Model([means], [pixels]), tmp_path / "model.xml")
    spec = spec_of(
        tmp_path / "model.xml",
        engine,
        labels=("red", "green", "blue"),
        softmax=False,
        pixels=PixelRule(scale=(255, 255, 255)),
    )
    scores = load_engine(spec, threads=1).predict(IMAGES[:2])
    assert scores == pytest.approx(IMAGES[:2].mean(axis=(1, 2)) / 255, abs=1e-4)


def bytes_file(folder: Path, engine: Target, *, divisor: float = 255) -> Path:
    """A file whose input is bytes, and whose output is the mean of each channel, 0 to 1."""
    if engine == "litert":
        inputs = keras.Input((HEIGHT, WIDTH, 3), dtype="uint8")
        x = keras.layers.Rescaling(1 / divisor)(inputs)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return lite(folder, keras.Model(inputs, x), lambda _: None)
    from worker.engines.openvino import ov  # noqa: PLC0415 - may not be installed

    ops = ov.opset13
    pixels = ops.parameter([-1, HEIGHT, WIDTH, 3], np.uint8, name="pixels")
    parts = ops.divide(ops.convert(pixels, np.float32), ops.constant(np.float32(divisor)))
    means = ops.reduce_mean(parts, ops.constant([1, 2]), keep_dims=False)
    ov.save_model(ov.Model([means], [pixels]), folder / "model.xml")
    return folder / "model.xml"


def test_a_file_that_takes_bytes_gets_bytes_and_nothing_else(
    tmp_path: Path, engine: Target
) -> None:
    path = bytes_file(tmp_path, engine)
    fields = {"labels": ("red", "green", "blue"), "softmax": False}
    spec = spec_of(path, engine, pixels=PixelRule(), **fields)
    scores = load_engine(spec, threads=1).predict(IMAGES[:2])
    assert scores == pytest.approx(IMAGES[:2].mean(axis=(1, 2)) / 255, abs=1e-4)
    spec = spec_of(path, engine, pixels=PixelRule(order="bgr"), **fields)
    assert load_engine(spec, threads=1).predict(IMAGES[:2]) == pytest.approx(scores[:, ::-1])
    for pixels in (PixelRule(scale=(255, 255, 255)), PixelRule(mean=(1, 0, 0))):
        with pytest.raises(ModelError, match=r"takes bytes as they are.*\[pixels\] must not"):
            load_engine(spec_of(path, engine, pixels=pixels, **fields), threads=1)


def test_scores_that_are_only_good_for_black_images_are_refused(
    tmp_path: Path, engine: Target
) -> None:
    path = bytes_file(tmp_path, engine, divisor=1)
    spec = spec_of(path, engine, labels=("r", "g", "b"), softmax=False, pixels=PixelRule())
    with pytest.raises(ModelError, match="softmax = true"):
        load_engine(spec, threads=1)
