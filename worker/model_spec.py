"""What a worker knows of a model before it is loaded.

Cheap to make and to read: nothing here imports TensorFlow.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from despacho.job.v1 import job_pb2

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
"""Names of models are parts of Redis keys and of URLs."""

Resize = Literal["crop", "stretch", "fit"]
Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

EngineName = Literal["auto", "tensorflow", "litert", "openvino", "null"]
Precision = Literal["float32", "bf16"]

ENGINE_OF_SUFFIX: Final[Mapping[str, EngineName]] = {".tflite": "litert", ".xml": "openvino"}
"""Files that one engine alone can run. All others are TensorFlow's, and converted for the rest."""

DEFAULT_CACHE: Final = Path("~/.cache/despacho")
"""Where prepared, downloaded and converted models are kept, unless somebody says where."""

Byte = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(ge=1, le=4096)]
Nonzero = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class ModelError(Exception):
    """The model cannot be served as it is described; one line, for whoever runs the worker."""


class ModelChanged(ModelError):
    """The model is another one than when the start began: its description may be, too."""

    def __init__(self, spec: "ModelSpec") -> None:
        super().__init__(f"{spec.name}: the model was changed during the start; start again")


class ModelUnreadable(ModelError):
    """A file of the model cannot be read: whatever would run it fails for that reason, too."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{error.filename or path}: {error.strerror or error}")


class NotNow(ModelError):
    """The reason is the machine at this moment, such as a full disk; the next start may do it."""


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

    @model_validator(mode="after")
    def _resize_needs_what_is_given(self) -> Self:
        if self.crop_fraction != 1 and self.resize != "crop":
            raise ValueError(f'crop_fraction is for resize = "crop", not for "{self.resize}"')
        if any(self.padding) and self.resize != "fit":
            raise ValueError(f'padding is for resize = "fit", not for "{self.resize}"')
        return self


class PixelRule(Frozen):
    """What the model sees of a pixel: (value - mean) / scale, by channel."""

    mean: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0)
    """Red, green, blue; 0 to 255."""

    scale: tuple[Nonzero, Nonzero, Nonzero] = (1.0, 1.0, 1.0)
    """Red, green, blue."""

    order: Literal["rgb", "bgr"] = "rgb"
    """In which order the model takes the channels."""

    @property
    def is_scaling(self) -> bool:
        """Whether the numbers that the model sees are not the bytes."""
        return any(self.mean) or any(factor != 1 for factor in self.scale)


class ModelFile(Frozen):
    """A `.keras` file, the folder of a SavedModel, a `.tflite` file or an OpenVINO `.xml` file."""

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


Origin = ModelFile | BundledModel | KerasApplication | NoWeights


class ModelSpec(Frozen):
    """All that is known of a model before it is loaded."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    version: Annotated[str, Field(min_length=1, max_length=128)]

    engine: EngineName = "tensorflow"
    """What runs it; `auto`: the fastest that is installed and agrees with TensorFlow."""

    precision: Precision = "float32"
    """In which numbers it is computed; `bf16`: OpenVINO may, where the processor can."""

    origin: Origin
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

    @model_validator(mode="after")
    def _softmax_is_of_several(self) -> Self:
        if self.softmax and len(self.labels) == 1:
            raise ValueError(
                "output.softmax: softmax of one score is always 1; end the model in a sigmoid"
            )
        return self

    @model_validator(mode="after")
    def _engine_runs_the_file(self) -> Self:
        if isinstance(self.origin, ModelFile):
            only = ENGINE_OF_SUFFIX.get(self.origin.path.suffix)
            if only is not None and self.engine not in {"auto", only}:
                raise ValueError(f"{self.origin.path.name} is run by {only}, not by {self.engine}")
        if self.precision == "bf16" and self.engine not in {"auto", "openvino"}:
            raise ValueError(f"precision: {self.engine} does not compute in bf16; openvino does")
        return self

    def with_engine(self, engine: EngineName | None, precision: Precision | None) -> "ModelSpec":
        """Return the same model, run by something else.

        Args:
            engine: None: as it is.
            precision: None: as it is.

        Raises:
            ModelError: that engine cannot run it.
        """
        if self.engine == "null":
            return self  # there is nothing to run
        changes = {"engine": engine or self.engine, "precision": precision or self.precision}
        try:
            return ModelSpec(**(dict(self) | changes))
        except ValidationError as error:
            reasons = (one["msg"].removeprefix("Value error, ") for one in error.errors())
            raise ModelError(f"{self.name}: " + "; ".join(reasons)) from None

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
