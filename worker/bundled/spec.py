"""What the bundled model is, without loading it."""

from pathlib import Path
from typing import Final

from worker.imagenet_labels import imagenet_labels
from worker.model_spec import BundledModel, InputRule, ModelSpec, PixelRule

NAME: Final = "efficientnet-lite0"
VERSION: Final = "1"
"""Raised whenever the same image may get other scores."""

INPUT: Final = InputRule(width=224, height=224, resize="crop", crop_fraction=224 / 256)
PIXELS: Final = PixelRule(mean=(127, 127, 127), scale=(128, 128, 128))


def bundled_model(cache_dir: Path) -> ModelSpec:
    """Return the description of the bundled model.

    Args:
        cache_dir: where it is prepared when the engine is loaded.
    """
    return ModelSpec(
        name=NAME,
        version=VERSION,
        origin=BundledModel(cache_dir=cache_dir),
        labels=imagenet_labels(),
        input=INPUT,
        pixels=PIXELS,
        softmax=True,
    )
