"""What is done around a model that has no scaling inside: pixels before, probabilities after."""

from typing import Any

import numpy as np
import numpy.typing as npt

from worker.engine import Float32Array, UInt8Array
from worker.model_spec import PixelRule


def scaled(images: UInt8Array, rule: PixelRule) -> Float32Array:
    """Return what the model should see of each pixel: (value - mean) / scale."""
    pixels = images.astype(np.float32)
    if any(rule.mean):
        pixels -= np.array(rule.mean, np.float32)
    if any(factor != 1 for factor in rule.scale):
        pixels /= np.array(rule.scale, np.float32)
    return pixels[..., ::-1] if rule.order == "bgr" else pixels


def quantised(
    pixels: Float32Array, dtype: npt.DTypeLike, scale: float, zero_point: int
) -> npt.NDArray[Any]:
    """Return the integers that stand for these numbers: number / scale + zero point."""
    limits = np.iinfo(np.dtype(dtype))
    return np.clip(np.round(pixels / scale + zero_point), limits.min, limits.max).astype(dtype)


def dequantised(values: npt.NDArray[Any], scale: float, zero_point: int) -> Float32Array:
    """Return the numbers that integers stand for."""
    return ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)


def softmax(logits: Float32Array) -> Float32Array:
    """Return probabilities; each row is one image."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Float32Array = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
