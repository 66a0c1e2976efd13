"""Builds a model of `keras.applications`, with the scaling that its family was trained with."""

import os
from functools import partial
from pathlib import Path
from typing import Any, Final

from worker.engines.downloaded_once import downloaded_once
from worker.engines.model_file import Network, of_keras
from worker.engines.runtime import keras
from worker.keras_applications import PREFIX
from worker.model_spec import ModelError, NotNow

IMAGENET: Final = "imagenet"

# Where the module of an application is not called like the application in lower case.
_FAMILIES: Final = (
    ("ConvNeXt", "convnext"),
    ("DenseNet", "densenet"),
    ("EfficientNetV2", "efficientnet_v2"),
    ("EfficientNet", "efficientnet"),
    ("InceptionResNetV2", "inception_resnet_v2"),
    ("InceptionV3", "inception_v3"),
    ("MobileNetV2", "mobilenet_v2"),
    ("MobileNetV3", "mobilenet_v3"),
    ("MobileNet", "mobilenet"),
    ("NASNet", "nasnet"),
    ("VGG16", "vgg16"),
    ("VGG19", "vgg19"),
    ("Xception", "xception"),
)


def build_application(application: str, *, weights: str | Path | None = IMAGENET) -> Network:
    """Return an application that takes pixels from 0 to 255.

    Args:
        application: as in `keras.applications`, such as `MobileNetV2`.
        weights: `imagenet` downloads them on first use, to KERAS_HOME; or a file of weights; None:
            random ones.

    Raises:
        NotNow: its weights cannot be had.
    """
    preprocess = family(application).preprocess_input
    try:
        build = partial(getattr(keras.applications, application), weights=weights)
        if weights == IMAGENET:
            name = f"{application}-{keras.__version__}"
            model = downloaded_once(_keras_home() / "models", name, build)
        else:
            model = build()
    except Exception as error:
        # Keras raises a bare Exception when a download fails.
        raise NotNow(
            f"{PREFIX}{application}: its weights cannot be loaded: {str(error).strip()}"
        ) from error
    network = of_keras(model, application)
    return Network(
        call=lambda pixels: network.call(preprocess(pixels)),
        input_dtype=network.input_dtype,
        input_shape=network.input_shape,
        owner=network.owner,
    )


def _keras_home() -> Path:
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()


def family(application: str) -> Any:
    """Return the module of `keras.applications` that an application belongs to."""
    if application.startswith("ResNet"):
        is_second = application.endswith("V2")
        return keras.applications.resnet_v2 if is_second else keras.applications.resnet
    for prefix, module in _FAMILIES:
        if application.startswith(prefix):
            return getattr(keras.applications, module)
    raise ModelError(f"{PREFIX}{application}: no such application")
