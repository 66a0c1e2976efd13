"""What a worker knows of a model before it is loaded.

Cheap to make and to read: nothing here imports TensorFlow.
"""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from despacho.job.v1 import job_pb2

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
"""Names of models are parts of Redis keys and of URLs."""

Resize = Literal["crop", "stretch", "fit"]
Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

Byte = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(ge=1, le=4096)]
Nonzero = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class ModelError(Exception):
    """The model cannot be served as it is described; one line, for whoever runs the worker."""


class Frozen(BaseModel):
    """Checked when made, and never changed; a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class InputRule(Frozen):
    """How an image of any size becomes the model's input; all that decoding needs to know."""

    width: Side
    """Pixels."""

    height: Side
    """Pixels."""

    resize: Resize = "crop"
    """`crop`: cut the largest centred part of the input's shape, times `crop_fraction`, then
    scale it. `stretch`: scale the whole image, whatever its shape. `fit`: scale the whole image
    in its own shape and fill what is left with `padding`."""

    crop_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Which part of the largest centred cut is kept, by side. Only for `crop`."""

    filter: Filter = "bicubic"
    """How pixels are interpolated."""

    padding: tuple[Byte, Byte, Byte] = (0, 0, 0)
    """Red, green and blue beside an image that does not fill the input. Only for `fit`."""


class PixelRule(Frozen):
    """What the model sees of a pixel: (value - mean) / scale, by channel."""

    mean: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0)
    """Red, green, blue; 0 to 255."""

    scale: tuple[Nonzero, Nonzero, Nonzero] = (1.0, 1.0, 1.0)
    """Red, green, blue."""

    order: Literal["rgb", "bgr"] = "rgb"
    """In which order the model takes the channels."""


class ModelFile(Frozen):
    """A `.keras` file, or the folder of a SavedModel."""

    path: Path


class BundledModel(Frozen):
    """EfficientNet-Lite0, prepared in a cache directory on first use."""

    cache_dir: Path


class KerasApplication(Frozen):
    """A model of `keras.applications`, its weights downloaded to a cache directory on first use."""

    application: str
    cache_dir: Path


class NoWeights(Frozen):
    """Nothing to load; for the engine `null`."""


class ModelSpec(Frozen):
    """All that is known of a model before it is loaded."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    version: Annotated[str, Field(min_length=1, max_length=128)]

    engine: Literal["tensorflow", "null"] = "tensorflow"
    """What runs it."""

    origin: ModelFile | BundledModel | KerasApplication | NoWeights
    """Where its weights come from."""

    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the classes; the index is the class id."""

    input: InputRule
    pixels: PixelRule = PixelRule()

    softmax: bool = False
    """Whether the model's outputs are logits, and the engine makes probabilities of them."""

    default_batch_size: Annotated[int, Field(ge=1, le=256)] = 16
    """Most images in one inference, if the worker's settings do not say."""

    @model_validator(mode="after")
    def _labels_are_names(self) -> Self:
        for index, label in enumerate(self.labels):
            if not label.strip():
                raise ValueError(f"label {index} is empty")
        return self

    def card(self, max_batch_size: int) -> job_pb2.ModelCard:
        """Return what the worker announces.

        Args:
            max_batch_size: most images in one inference; 0: what the model suggests.
        """
        return job_pb2.ModelCard(
            name=self.name,
            version=self.version,
            engine=self.engine,
            labels=self.labels,
            input_width=self.input.width,
            input_height=self.input.height,
            max_batch_size=max_batch_size or self.default_batch_size,
        )
