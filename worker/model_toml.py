"""Reads `model.toml`, which describes a model. Its reference is `docs/models.md`."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from worker.model_spec import (
    ENGINE_OF_SUFFIX,
    NAME_PATTERN,
    EngineName,
    Finite,
    Frozen,
    InputRule,
    ModelError,
    ModelFile,
    ModelSpec,
    Nonzero,
    NoWeights,
    PixelRule,
    Precision,
)

FILE_NAME: Final = "model.toml"

PATH_ERRORS: Final = (OSError, RuntimeError, ValueError)
"""What a path raises that cannot be looked at: a folder that may not be entered or a name that is
too long, links in a circle or a user that is not known, a zero byte."""


def _for_each_channel(value: object) -> object:
    """Let one number stand for three equal ones."""
    return (value, value, value) if isinstance(value, int | float) else value


class _Pixels(Frozen):
    mean: Annotated[tuple[Finite, Finite, Finite], BeforeValidator(_for_each_channel)] = (0, 0, 0)
    scale: Annotated[tuple[Nonzero, Nonzero, Nonzero], BeforeValidator(_for_each_channel)] = (
        1,
        1,
        1,
    )
    order: Literal["rgb", "bgr"] = "rgb"

    @field_validator("scale")
    @classmethod
    def _divides_bytes(cls, scale: tuple[float, ...]) -> tuple[float, ...]:
        # What is known by heart is for pixels from 0 to 1, or to be multiplied by.
        if min(scale) < 1:
            raise ValueError(
                "pixels are 0 to 255 and are divided by it: 255, not 1/255; and of PyTorch's mean"
                " and std 255 times each number"
            )
        return scale


class _Output(Frozen):
    labels: str | None = None
    classes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    softmax: bool = False

    @model_validator(mode="after")
    def _one_source_of_labels(self) -> Self:
        if (self.labels is None) == (self.classes is None):
            raise ValueError("give either `labels`, a file with one name a line, or `classes`")
        return self


class _AnyToml(Frozen):
    """The keys that every file may have."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    version: Annotated[str, Field(min_length=1, max_length=128)]
    default_batch_size: Annotated[int, Field(ge=1, le=256)] = 16
    output: _Output


class _ModelToml(_AnyToml):
    """The file of a model, key by key."""

    engine: Literal["auto", "tensorflow", "litert", "openvino"] = "tensorflow"
    precision: Precision = "float32"
    file: str
    input: InputRule
    pixels: _Pixels = _Pixels()


class _NullToml(_AnyToml):
    """The file of what is no model."""

    engine: Literal["null"]


_ONE_PIXEL: Final = InputRule(width=1, height=1)


def read_model_directory(
    directory: Path, *, engine: EngineName | None = None, precision: Precision | None = None
) -> ModelSpec:
    """Return what a model directory says of its model.

    Args:
        directory: with a `model.toml`.
        engine: runs the model, whatever the file says; None: what the file says.
        precision: likewise. Neither counts if there is no model to run.

    Raises:
        ModelError: the directory is not there, or something in it is wrong; the message names
            the file and the key.
    """
    path = directory / FILE_NAME
    described = _parsed(path)
    labels = _labels(directory, described.output, key=f"{path}: output.labels")
    if isinstance(described, _NullToml):
        return ModelSpec(
            name=described.name,
            version=described.version,
            engine=described.engine,
            origin=NoWeights(),
            labels=labels,
            input=_ONE_PIXEL,
            default_batch_size=described.default_batch_size,
        )
    file = _inside(directory, described.file, key=f"{path}: file")
    _check_kind(file, key=f"{path}: file")
    try:
        return ModelSpec(
            name=described.name,
            version=described.version,
            engine=engine or described.engine,
            precision=precision or described.precision,
            origin=ModelFile(path=file),
            labels=labels,
            input=described.input,
            pixels=PixelRule(**described.pixels.model_dump()),
            softmax=described.output.softmax,
            default_batch_size=described.default_batch_size,
        )
    except ValidationError as error:
        raise ModelError(_one_line(path, error)) from None


def _parsed(path: Path) -> _ModelToml | _NullToml:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ModelError(f"{path}: not UTF-8") from None
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{path}: {error}") from None
    schema = _NullToml if content.get("engine") == "null" else _ModelToml
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise ModelError(_one_line(path, error)) from None


def _one_line(path: Path, error: ValidationError) -> str:
    """Return every complaint, each with its key."""
    complaints = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        complaints.append(f"{key}: {message}" if key else message)
    return f"{path}: " + "; ".join(complaints)


def path_fault(error: Exception) -> str:
    """Return what one of `PATH_ERRORS` says, without the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _inside(directory: Path, relative: str, *, key: str) -> Path:
    """Return the path of something that is there, below the directory."""
    try:
        root = directory.resolve()
        path = (root / relative).resolve()
        is_there = path.exists()
    except PATH_ERRORS as error:
        raise ModelError(f"{key}: {relative!r}: {path_fault(error)}") from None
    if not path.is_relative_to(root) or path == root:
        raise ModelError(f"{key}: {relative!r} leads out of the model directory")
    if not is_there:
        raise ModelError(f"{key}: there is no {relative!r} in the model directory")
    return path


def _check_kind(file: Path, *, key: str) -> None:
    """Refuse what no engine reads, before one takes seconds to say so."""
    if file.is_dir() or file.suffix in {".keras", *ENGINE_OF_SUFFIX}:
        return
    way_out = ""
    if file.suffix in {".h5", ".hdf5"}:
        made = f'keras.saving.load_model("{file.name}").save("model.keras")'
        way_out = f"; {made} makes a .keras file of it"
    raise ModelError(
        f"{key}: {file.name} is neither a .keras, .tflite or .xml file nor the folder of a"
        f" SavedModel{way_out}"
    )


def _labels(directory: Path, output: _Output, *, key: str) -> tuple[str, ...]:
    """Return one name for each class, read or made up."""
    if output.labels is None:
        return tuple(f"class {class_id}" for class_id in range(output.classes or 0))
    path = _inside(directory, output.labels, key=key)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ModelError(f"{key}: {path.name}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ModelError(f"{key}: {path.name}: not UTF-8") from None
    labels = tuple(line.strip() for line in lines)
    for number, label in enumerate(labels, start=1):
        if not label:
            raise ModelError(f"{key}: {path.name}: line {number} is empty")
    if not labels:
        raise ModelError(f"{key}: {path.name}: no labels")
    return labels
