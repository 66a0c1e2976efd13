"""LiteRT with `.tflite` files whose input and output are integers that stand for numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.engine import UInt8Array
from worker.engines.installed import version_of
from worker.engines.runtime import keras, tf
from worker.model_directory import load_engine
from worker.model_spec import InputRule, ModelError, ModelFile, ModelSpec, PixelRule

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(120),
    pytest.mark.skipif(version_of("litert") is None, reason="litert: requirements-engines.txt"),
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs"),
]

SIDE = 8
COLOURS: UInt8Array = np.random.default_rng(7).integers(0, 256, (20, 3), dtype=np.uint8)
COLOURS[:2] = [[0, 0, 0], [255, 255, 255]]
IMAGES: UInt8Array = np.ascontiguousarray(
    np.broadcast_to(COLOURS[:, None, None], (20, SIDE, SIDE, 3))
)
ONE = PixelRule(mean=(127.5,) * 3, scale=(127.5,) * 3)
"""Pixels from -1 to 1."""


def spec_of(path: Path, pixels: PixelRule, *, softmax: bool) -> ModelSpec:
    return ModelSpec(
        name="means",
        version="1",
        engine="litert",
        origin=ModelFile(path=path),
        labels=("red", "green", "blue"),
        input=InputRule(width=SIDE, height=SIDE),
        pixels=pixels,
        softmax=softmax,
    )


def quantised(path: Path, samples: Any, *, factor: float = 1, kind: str = "uint8") -> Path:
    """A file that returns the mean of each channel, quantised with such pixels."""
    inputs = keras.Input((SIDE, SIDE, 3))
    means = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(factor)(inputs))
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(inputs, means))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([one[None]] for one in samples.astype(np.float32))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = getattr(tf, kind)
    path.write_bytes(converter.convert())
    return path


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_a_quantised_file_is_served(tmp_path: Path, kind: str) -> None:
    rule = PixelRule(mean=(120, 110, 100), scale=(60, 50, 70), order="bgr")
    pixels = ((IMAGES - np.array(rule.mean)) / np.array(rule.scale))[..., ::-1]
    path = quantised(tmp_path / "model.tflite", pixels, kind=kind)
    scores = load_engine(spec_of(path, rule, softmax=True), threads=1).predict(IMAGES)
    expected = tf.nn.softmax(pixels.mean(axis=(1, 2))).numpy()
    assert scores == pytest.approx(expected, abs=0.02)


def test_pixels_have_to_be_those_that_it_was_quantised_with(tmp_path: Path) -> None:
    path = quantised(tmp_path / "outside.tflite", IMAGES / 127.5 - 1)
    assert load_engine(spec_of(path, ONE, softmax=True), threads=1)
    for pixels, ours in (
        (PixelRule(), "0 to 255"),
        (PixelRule(mean=(128,) * 3), "-128 to 127"),
        (PixelRule(mean=(-300,) * 3, scale=(127.5,) * 3), r"2\.35 to 4\.35"),
    ):
        with pytest.raises(ModelError, match=rf"stands for \S+ to 1, and \[pixels\] makes {ours}"):
            load_engine(spec_of(path, pixels, softmax=True), threads=1)


def test_a_quantised_file_that_scales_by_itself_takes_bytes(tmp_path: Path) -> None:
    path = quantised(tmp_path / "inside.tflite", IMAGES, factor=1 / 255)
    scores = load_engine(spec_of(path, PixelRule(), softmax=False), threads=1).predict(IMAGES)
    assert scores == pytest.approx(COLOURS / 255, abs=0.01)
    with pytest.raises(ModelError, match=r"stands for 0 to 255, and \[pixels\] makes -1 to 1 of"):
        load_engine(spec_of(path, ONE, softmax=False), threads=1)
