from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.engines.keras_application import build_application, family
from worker.engines.loading import in_python
from worker.engines.runtime import keras, tf
from worker.engines.tensorflow_engine import TensorflowEngine
from worker.keras_applications import INPUT_SIZES
from worker.model_directory import load_engine, open_model
from worker.model_spec import InputRule, ModelError, ModelFile, ModelSpec, PixelRule

pytestmark = pytest.mark.model

LOGITS = np.log([0.5, 0.3, 0.2])


def spec_of(path: Path, **changes: Any) -> ModelSpec:
    fields: dict[str, Any] = {
        "name": "means",
        "version": "1",
        "origin": ModelFile(path=path),
        "labels": ("red", "green", "blue"),
        "input": InputRule(width=6, height=4),
        "pixels": PixelRule(scale=(255, 255, 255)),
    }
    return ModelSpec(**(fields | changes))


def means() -> Any:
    """The mean of each channel as its score."""
    inputs = keras.Input((4, 6, 3))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))


def keras_file(folder: Path, model: Any = None) -> Path:
    path = folder / "model.keras"
    (model or means()).save(path)
    return path


def saved(folder: Path, call: Callable[[Any], Any], spec: Any, *, signed: bool = True) -> Path:
    module = tf.Module()
    module.weight = tf.Variable(1.0)
    module.__call__ = tf.function(
        lambda images: call(images * tf.cast(module.weight, images.dtype)), input_signature=[spec]
    )
    module.another = module.__call__  # what has one function alone is given a signature
    signatures = module.__call__.get_concrete_function() if signed else None
    tf.saved_model.save(module, str(folder / "saved"), signatures=signatures)
    return folder / "saved"


FLOATS = tf.TensorSpec((None, 4, 6, 3), tf.float32, name="pixels")
COLOURS = np.broadcast_to(
    np.array([[51, 102, 204], [255, 0, 0]], np.uint8)[:, None, None], (2, 4, 6, 3)
)
EXPECTED = [[0.2, 0.4, 0.8], [1, 0, 0]]


def test_keras_file_scores_scaled_pixels(tmp_path: Path) -> None:
    engine = in_python(spec_of(keras_file(tmp_path)), threads=0)
    scores = engine.predict(COLOURS)
    assert scores.dtype == np.float32
    assert scores == pytest.approx(np.array(EXPECTED), abs=1e-6)


def test_keras_export_is_served(tmp_path: Path) -> None:
    means().export(tmp_path / "saved", verbose=False)
    engine = in_python(spec_of(tmp_path / "saved"), threads=0)
    assert engine.predict(COLOURS) == pytest.approx(np.array(EXPECTED), abs=1e-6)


@pytest.mark.parametrize("signed", [True, False])
def test_saved_model_is_served_by_signature_or_by_call(tmp_path: Path, *, signed: bool) -> None:
    path = saved(tmp_path, lambda x: tf.reduce_mean(x, [1, 2]), FLOATS, signed=signed)
    engine = in_python(spec_of(path), threads=0)
    assert engine.predict(COLOURS) == pytest.approx(np.array(EXPECTED), abs=1e-6)


def test_one_output_may_be_in_a_dict(tmp_path: Path) -> None:
    model = means()
    in_keras = keras_file(tmp_path, keras.Model(model.inputs, {"scores": model.outputs[0]}))
    called = saved(tmp_path, lambda x: {"p": tf.reduce_mean(x, [1, 2])}, FLOATS, signed=False)
    for path in (in_keras, called):
        engine = in_python(spec_of(path), threads=0)
        assert engine.predict(COLOURS) == pytest.approx(np.array(EXPECTED), abs=1e-6)


@pytest.mark.parametrize("signed", [True, False])
def test_model_that_takes_bytes_gets_bytes(tmp_path: Path, *, signed: bool) -> None:
    path = saved(
        tmp_path,
        lambda x: tf.reduce_mean(tf.cast(x, tf.float32), [1, 2]) / 255,
        tf.TensorSpec((None, None, None, 3), tf.uint8),
        signed=signed,
    )
    engine = in_python(spec_of(path, pixels=PixelRule()), threads=0)
    assert engine.predict(COLOURS) == pytest.approx(np.array(EXPECTED), abs=1e-6)


@pytest.mark.parametrize(
    "pixels",
    [PixelRule(scale=(255, 255, 255)), PixelRule(mean=(127.5,) * 3, scale=(127.5,) * 3)],
)
@pytest.mark.parametrize("dtype", [tf.uint8, tf.int32])
def test_model_that_takes_integers_is_not_scaled(
    tmp_path: Path, pixels: PixelRule, dtype: Any
) -> None:
    path = saved(
        tmp_path,
        lambda x: tf.reduce_mean(tf.cast(x, tf.float32), [1, 2]) / 255,
        tf.TensorSpec((None, 4, 6, 3), dtype),
    )
    with pytest.raises(ModelError, match=r"takes bytes as they are .* \[pixels\] must not scale"):
        in_python(spec_of(path, pixels=pixels), threads=0)


def test_mean_scale_and_order_are_by_channel(tmp_path: Path) -> None:
    pixels = PixelRule(mean=(-51, 0, 0), scale=(408, 204, 204), order="bgr")
    engine = in_python(spec_of(keras_file(tmp_path), pixels=pixels), threads=0)
    (scores,) = engine.predict(COLOURS[:1])
    assert scores.tolist() == pytest.approx([1, 0.5, 0.25])


def test_logits_become_probabilities(tmp_path: Path) -> None:
    path = saved(tmp_path, lambda x: tf.zeros((tf.shape(x)[0], 3)) + LOGITS, FLOATS)
    engine = in_python(spec_of(path, softmax=True), threads=0)
    assert engine.predict(COLOURS) == pytest.approx(np.array([[0.5, 0.3, 0.2]] * 2), abs=1e-6)


def test_logits_without_softmax_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, lambda x: tf.zeros((tf.shape(x)[0], 3)) + LOGITS, FLOATS)
    with pytest.raises(ModelError, match="softmax = true"):
        in_python(spec_of(path), threads=0)


def test_one_logit_without_a_sigmoid_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, lambda x: 9 - tf.reduce_mean(x, [1, 2])[:, :1], FLOATS)
    with pytest.raises(ModelError, match=r"if they are logits, end the model in a sigmoid$"):
        in_python(spec_of(path, labels=("cat",)), threads=0)


def test_logits_that_are_zero_for_black_images_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, lambda x: tf.reduce_mean(x, [1, 2]), FLOATS)
    with pytest.raises(ModelError, match="softmax = true"):
        in_python(spec_of(path, pixels=PixelRule()), threads=0)


def test_model_that_overflows_on_photos_is_refused(tmp_path: Path) -> None:
    def call(pixels: Any) -> Any:
        means = tf.reduce_mean(pixels, [1, 2])
        return tf.nn.softmax(tf.cast(means, tf.float16) * 1000)

    spec = spec_of(saved(tmp_path, call, FLOATS), pixels=PixelRule())
    with pytest.raises(ModelError, match="scores that are not numbers"):
        load_engine(spec, threads=0, cache_dir=tmp_path / "cache")


def normalised() -> Any:
    """A model with a layer that prepares images, and one that training treats differently."""
    inputs = keras.Input((4, 6, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Resizing(4, 6)(inputs))
    x = keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def test_model_that_was_exported_in_training_mode_is_refused(tmp_path: Path) -> None:
    normalised().export(tmp_path / "saved", verbose=False)
    # Whatever engine it is converted for.
    with pytest.raises(ModelError, match=r"writes to its variables .*ExportArchive"):
        load_engine(spec_of(tmp_path / "saved"), threads=0, cache_dir=tmp_path / "cache")


def test_model_that_counts_its_calls_is_served(tmp_path: Path) -> None:
    module = tf.Module()
    module.calls = tf.Variable(0)

    def call(pixels: Any) -> Any:
        module.calls.assign_add(1)
        return tf.reduce_mean(pixels, [1, 2])

    module.__call__ = tf.function(call, input_signature=[FLOATS])
    tf.saved_model.save(module, str(tmp_path / "saved"))
    engine = in_python(spec_of(tmp_path / "saved"), threads=0)
    assert engine.predict(COLOURS) == pytest.approx(np.array(EXPECTED), abs=1e-6)


def test_model_that_was_exported_as_the_refusal_says_is_served(tmp_path: Path) -> None:
    model = normalised()
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve", lambda pixels: model(pixels, training=False), input_signature=[FLOATS]
    )
    archive.write_out(tmp_path / "saved", verbose=False)
    engine = in_python(spec_of(tmp_path / "saved"), threads=0)
    scores = engine.predict(COLOURS)
    assert scores == pytest.approx(model(COLOURS / np.float32(255), training=False).numpy())


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.bfloat16])
@pytest.mark.parametrize(
    "call",
    [
        lambda means: means - tf.reduce_mean(means, 0) + 0.5,
        lambda means: 0.5 + tf.cast(tf.random.uniform(tf.shape(means)), means.dtype) / 16,
    ],
    ids=["others", "chance"],
)
def test_scores_that_depend_on_other_images_or_on_chance_are_refused(
    tmp_path: Path, call: Callable[[Any], Any], dtype: Any
) -> None:
    path = saved(tmp_path, lambda x: call(tf.cast(tf.reduce_mean(x, [1, 2]), dtype)), FLOATS)
    with pytest.raises(ModelError, match=r"depend on the other images .*training=False"):
        in_python(spec_of(path), threads=0)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.bfloat16])
def test_a_batch_may_be_summed_up_in_another_order(tmp_path: Path, dtype: Any) -> None:
    def call(pixels: Any) -> Any:
        alone = tf.cast(tf.shape(pixels)[0] == 1, dtype)
        return tf.cast(tf.reduce_mean(pixels, [1, 2]), dtype) * (1 - alone / 64)

    spec = spec_of(saved(tmp_path, call, FLOATS))
    if dtype == tf.float32:
        with pytest.raises(ModelError, match="depend on the other images"):
            in_python(spec, threads=0)
    else:
        scores = in_python(spec, threads=0).predict(COLOURS)
        assert scores == pytest.approx(np.array(EXPECTED), abs=0.01)


def test_a_keras_file_is_not_told_to_be_a_keras_file(tmp_path: Path) -> None:
    inputs = keras.Input((4, 6, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, x - keras.ops.mean(x, axis=0) + 0.5)
    with pytest.raises(
        ModelError, match=r"depend on the other images .* \(they differ by [^)]*\)$"
    ):
        in_python(spec_of(keras_file(tmp_path, model)), threads=0)


def test_any_size_of_batch_runs_the_same_graph(tmp_path: Path) -> None:
    traces = []

    def call(pixels: Any) -> Any:
        traces.append(pixels.shape)
        return tf.reduce_mean(pixels, [1, 2])

    network = in_python(spec_of(saved(tmp_path, call, FLOATS)), threads=0)
    count = len(traces)
    network.warm_up([1, 16])
    for size in range(1, 6):
        assert network.predict(np.zeros((size, 4, 6, 3), np.uint8)).shape == (size, 3)
    assert len(traces) == count


def test_model_that_cannot_be_frozen_is_served(tmp_path: Path) -> None:
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer([0, 1], [0.0, 1.0], tf.int32, tf.float32), 0.5
    )

    def call(pixels: Any) -> Any:
        return table.lookup(tf.cast(tf.round(tf.reduce_mean(pixels, [1, 2])), tf.int32))

    module = tf.Module()
    module.table = table
    module.__call__ = tf.function(call, input_signature=[FLOATS])
    tf.saved_model.save(
        module, str(tmp_path / "saved"), signatures=module.__call__.get_concrete_function()
    )
    engine = in_python(spec_of(tmp_path / "saved"), threads=0)
    assert engine.predict(COLOURS).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_wrong_number_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"returns \(2, 3\) for 2 images; 2 labels need \(2, 2\)"):
        in_python(spec_of(keras_file(tmp_path), labels=("a", "b")), threads=0)


def test_wrong_input_size_is_refused(tmp_path: Path) -> None:
    spec = spec_of(keras_file(tmp_path), input=InputRule(width=8, height=8))
    with pytest.raises(ModelError, match=r"takes \(any, 4, 6, 3\).*described as \(any, 8, 8, 3\)"):
        in_python(spec, threads=0)


def test_model_for_batches_of_one_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, lambda x: tf.reduce_mean(x[:1], [1, 2]), FLOATS)
    with pytest.raises(ModelError, match=r"returns \(1, 3\) for 2 images"):
        in_python(spec_of(path), threads=0)


@pytest.mark.parametrize(
    ("signed", "refusal"), [(True, r"returns \['a', 'b'\]"), (False, "returns 2 outputs")]
)
def test_two_outputs_are_refused(tmp_path: Path, *, signed: bool, refusal: str) -> None:
    path = saved(tmp_path, lambda x: {"a": x, "b": x}, FLOATS, signed=signed)
    with pytest.raises(ModelError, match=refusal):
        in_python(spec_of(path), threads=0)


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    one, two = keras.Input((4, 6, 3)), keras.Input((4, 6, 3))
    path = keras_file(tmp_path, keras.Model([one, two], keras.layers.Add()([one, two])))
    with pytest.raises(ModelError, match="2 inputs"):
        in_python(spec_of(path), threads=0)


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 nor this"])
def test_damaged_keras_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.keras: cannot be loaded"):
        in_python(spec_of(path), threads=0)


def test_damaged_saved_model_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, lambda x: tf.reduce_mean(x, [1, 2]), FLOATS)
    (path / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="cannot be loaded"):
        in_python(spec_of(path), threads=0)


def test_saved_model_that_is_half_copied_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, lambda x: tf.reduce_mean(x, [1, 2]), FLOATS)
    (weights,) = path.glob("variables/variables.data*")
    weights.write_bytes(b"")
    with pytest.raises(ModelError, match="saved: cannot be loaded"):
        in_python(spec_of(path), threads=0)


def test_application_scales_pixels_as_its_family_does(tmp_path: Path) -> None:
    network = build_application("MobileNetV2", weights=None)
    spec = open_model("keras-applications:MobileNetV2", tmp_path)
    engine = TensorflowEngine(spec, network)
    images = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), np.uint8)
    expected = network.owner(images.astype(np.float32) / 127.5 - 1, training=False).numpy()
    assert engine.predict(images) == pytest.approx(expected, abs=1e-5)


def test_application_without_weights_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_bytes(b"what a broken download leaves")
    with pytest.raises(ModelError, match="MobileNetV2: its weights cannot be loaded"):
        build_application("MobileNetV2", weights=tmp_path / "weights.h5")


def test_weights_are_downloaded_to_the_home_of_keras_by_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models"
    build = keras.applications.MobileNetV2
    held: list[list[str]] = []

    def instead_of_downloading(*, weights: str) -> object:
        assert weights == "imagenet"
        held.append([path.suffix for path in folder.iterdir()])
        return build(weights=None)

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.applications, "MobileNetV2", instead_of_downloading)
    for _ in range(2):
        build_application("MobileNetV2")
    assert [sorted(each) for each in held] == [[".lock"], [".downloaded", ".lock"]]


@pytest.mark.parametrize("application", sorted(INPUT_SIZES))
def test_every_application_is_in_keras_with_its_family(application: str) -> None:
    built_in = getattr(keras.applications, application).__module__
    assert family(application).preprocess_input.__module__ == built_in


@pytest.mark.parametrize("application", ["EfficientNetV2B1", "Xception", "MobileNet"])
def test_input_size_is_that_of_keras(application: str) -> None:
    network = build_application(application, weights=None)
    size = INPUT_SIZES[application]
    assert network.input_shape == (None, size, size, 3)


def test_no_application_of_keras_is_missing() -> None:
    classes = {
        name
        for name in dir(keras.applications)
        if name[0].isupper() and callable(getattr(keras.applications, name))
    }
    assert classes == set(INPUT_SIZES)
