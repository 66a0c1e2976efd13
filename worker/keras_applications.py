"""The models of `keras.applications`, as far as they are known without importing Keras."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from worker.imagenet_labels import imagenet_labels
from worker.model_spec import InputRule, KerasApplication, ModelError, ModelSpec, Origin

PREFIX: Final = "keras-applications:"

CROP_FRACTION: Final = 0.875
"""The centred part of an image that ImageNet models are commonly evaluated on."""

_PLAIN_SIZE: Final = 224

_PLAIN: Final = (
    "ConvNeXtTiny",
    "ConvNeXtSmall",
    "ConvNeXtBase",
    "ConvNeXtLarge",
    "ConvNeXtXLarge",
    "DenseNet121",
    "DenseNet169",
    "DenseNet201",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "NASNetMobile",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "ResNet50V2",
    "ResNet101V2",
    "ResNet152V2",
    "VGG16",
    "VGG19",
)

_OTHER_SIZES: Final = {
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetB4": 380,
    "EfficientNetB5": 456,
    "EfficientNetB6": 528,
    "EfficientNetB7": 600,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384,
    "EfficientNetV2M": 480,
    "EfficientNetV2L": 480,
    "InceptionResNetV2": 299,
    "InceptionV3": 299,
    "NASNetLarge": 331,
    "Xception": 299,
}

INPUT_SIZES: Final[Mapping[str, int]] = dict.fromkeys(_PLAIN, _PLAIN_SIZE) | _OTHER_SIZES
"""Width and height of the input that each application was trained for, pixels."""


def keras_application(name: str, cache_dir: Path) -> ModelSpec:
    """Return what is known of an application; it is built when the engine is loaded.

    Args:
        name: as in `keras.applications`, such as `MobileNetV2`.
        cache_dir: where its weights are downloaded to.

    Raises:
        ModelError: there is no such application.
    """
    if name not in INPUT_SIZES:
        raise ModelError(f"{PREFIX}{name}: no such application; there are {', '.join(INPUT_SIZES)}")
    size = INPUT_SIZES[name]
    return ModelSpec(
        name=name.lower(),
        version="imagenet",
        origin=KerasApplication(application=name, cache_dir=cache_dir),
        labels=imagenet_labels(),
        input=InputRule(width=size, height=size, crop_fraction=CROP_FRACTION),
    )


def set_keras_home(origin: Origin) -> None:
    """Let Keras download to the cache; call it before Keras is imported, which reads that once."""
    if isinstance(origin, KerasApplication):
        os.environ.setdefault("KERAS_HOME", str(origin.cache_dir / "keras"))
