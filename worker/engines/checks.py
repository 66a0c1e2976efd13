"""What every engine checks of its model before it takes a job."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from worker.agreement import BF16_TOLERANCE, TOLERANCE, photos
from worker.engine import Engine, Float32Array, UInt8Array
from worker.model_spec import ModelError, ModelFile, ModelSpec

log = structlog.get_logger()

PROBE_SIZE: Final = 2
"""Images in the batch that is tried while loading; not 1, so that a model which only takes
batches of one shows."""

CHECKED_PHOTOS: Final = 4
"""How many a model is run on at each start; all of them when engines are chosen."""

ROUNDING: Final = 1e-3
"""How far beyond 0 to 1 a probability may be, through rounding."""

_TRAINING_MODE: Final = (
    ", as a SavedModel that was exported in training mode does; serve the .keras file, or export it"
    " with keras.export.ExportArchive and `lambda x: model(x, training=False)`"
    " (docs/models.md, Training mode)"
)
"""What is behind a SavedModel's answers that depend on more than the image, and the way out."""

LEAST_LOGIT: Final = 1e-5
"""How far below 0 a probability may seem to be, from scores that were rounded."""

_OPENVINO: Final = re.compile(r"Exception from \S|Check '.*' failed at ")
"""Lines of OpenVINO that name places in its own source; what is wrong comes after them, and after
headings with a colon."""

_UNKNOWN_OPERATIONS: Final = re.compile(
    r"(?:TF Select ops|Custom ops|No conversion rule found for operations): (.*\S)"
)
"""Where converters for LiteRT and OpenVINO, in the middle of many lines, list what they lack."""


def empty_images(spec: ModelSpec, count: int) -> UInt8Array:
    """Return black images of the model's input size."""
    return np.zeros((count, spec.input.height, spec.input.width, 3), np.uint8)


def check_input(spec: ModelSpec, shape: Sequence[int | None] | None) -> None:
    """Refuse a model whose own input is of another size.

    Args:
        spec: what the model should be.
        shape: its own idea of it, with the batch and the channels last; None: it has none.

    Raises:
        ModelError: they do not agree.
    """
    ours = (None, spec.input.height, spec.input.width, 3)
    theirs = ours if shape is None else shape
    if len(theirs) != len(ours) or any(
        size is not None and wanted is not None and size != wanted
        for size, wanted in zip(theirs, ours, strict=False)
    ):
        raise ModelError(
            f"{spec.name}: the model takes {_shown(theirs)}, and its input is described as"
            f" {_shown(ours)} (batch, height, width, channels)"
        )


def no_scaling(name: str, dtype: str) -> ModelError:
    """Return the error of a model that takes integers, of which scaling would leave 0 and 1."""
    return ModelError(f"{name}: takes bytes as they are ({dtype}), so [pixels] must not scale them")


def check_output(spec: ModelSpec, predict: Callable[[UInt8Array], Float32Array]) -> None:
    """Refuse a model that does not return one probability for each label.

    Args:
        spec: what the model should be.
        predict: runs it.

    Raises:
        ModelError: it raises, or returns something else.
    """
    check_scores(spec, predict, empty_images(spec, PROBE_SIZE))


def check_on_photos(spec: ModelSpec, predict: Callable[[UInt8Array], Float32Array]) -> None:
    """Refuse a model that returns probabilities for black images, and others for photos.

    For one that is not compared with scores of photos anyway.

    Args:
        spec: what the model should be.
        predict: runs it.

    Raises:
        ModelError: it raises, or returns something else.
    """
    scores = _scores_one_by_one(spec, predict, photos(spec.input)[:CHECKED_PHOTOS])
    warn_of_second_softmax(spec, scores)


def check_repeats(
    spec: ModelSpec, predict: Callable[[UInt8Array], Float32Array], *, has_16_bit_floats: bool
) -> None:
    """Refuse a model whose answer to an image depends on other images, or on chance.

    Photos alone, together, and alone again: the batch shows what is computed across images, the
    second time what the model keeps of those before. Refuses what `check_on_photos` does, too.

    Args:
        spec: what the model should be.
        predict: runs it.
        has_16_bit_floats: whether it computes in them, at least in part.

    Raises:
        ModelError: it does, or `check_on_photos` would raise it.
    """
    images = photos(spec.input)[:CHECKED_PHOTOS]
    alone = _scores_one_by_one(spec, predict, images)
    together = check_scores(spec, predict, images)
    again = _scores_one_by_one(spec, predict, images)
    # A batch is summed up in another order, and 16 bits show that; the same sums repeat exactly.
    limit = BF16_TOLERANCE if has_16_bit_floats else TOLERANCE
    across, later = np.abs(alone - together).max(), np.abs(alone - again).max()
    if across > limit or later > TOLERANCE:
        raise ModelError(
            f"{spec.name}: scores of an image depend on the other images of its batch, on those"
            f" before, or on chance (they differ by up to {max(across, later):.2g})"
            f"{training_mode(spec)}"
        )
    warn_of_second_softmax(spec, alone)


def training_mode(spec: ModelSpec) -> str:
    """Return what to add to an error of answers that depend on more than the image.

    Nothing for a Keras model, which is run as in inference: what it does, it does there, too.
    """
    origin = spec.origin
    is_saved_model = isinstance(origin, ModelFile) and origin.path.suffix != ".keras"
    return _TRAINING_MODE if is_saved_model else ""


def warn_of_second_softmax(spec: ModelSpec, scores: Float32Array) -> None:
    """Warn if scores of photos are the softmax of what were probabilities already.

    Only that: of two classes that a model cannot tell apart, logits look the same.

    Args:
        spec: what the model should be.
        scores: after the softmax.
    """
    if not spec.softmax:
        return
    logits = np.log(np.maximum(scores.astype(np.float64), np.finfo(np.float32).tiny))
    # Softmax loses what is added to all; this is what makes them one in sum, as probabilities are.
    logits += (1 - logits.sum(axis=1, keepdims=True)) / scores.shape[1]
    if np.all(logits >= -LEAST_LOGIT):
        log.warning(
            "the model seems to return probabilities; if it ends in a softmax, leave out"
            " `softmax = true`, as a second one makes all scores nearly the same",
            model=spec.name,
        )


def _scores_one_by_one(
    spec: ModelSpec, predict: Callable[[UInt8Array], Float32Array], images: UInt8Array
) -> Float32Array:
    return np.concatenate([check_scores(spec, predict, image[np.newaxis]) for image in images])


def check_scores(
    spec: ModelSpec, predict: Callable[[UInt8Array], Float32Array], images: UInt8Array
) -> Float32Array:
    """Run a model; return its scores, if there is one probability for each image and label.

    Raises:
        ModelError: it raises, or returns something else.
    """
    count = len(images)
    try:
        scores = predict(images)
    except Exception as error:
        raise ModelError(
            f"{spec.name}: fails on a batch of {count} images: {summary(error)}"
        ) from error
    wanted = (count, len(spec.labels))
    if scores.shape != wanted:
        raise ModelError(
            f"{spec.name}: returns {_shown(scores.shape)} for {count} images;"
            f" {len(spec.labels)} labels need {_shown(wanted)}"
        )
    if not np.all(np.isfinite(scores)):
        raise ModelError(
            f"{spec.name}: returns scores that are not numbers, as after an overflow"
            " in 16-bit floats"
        )
    if not (np.all(scores >= -ROUNDING) and np.all(scores <= 1 + ROUNDING)):
        raise ModelError(
            f"{spec.name}: returns scores outside 0 to 1; if they are logits, {_way_out(spec)}"
        )
    return scores


def _way_out(spec: ModelSpec) -> str:
    """Return how logits of a model become probabilities."""
    if len(spec.labels) == 1:
        return "end the model in a sigmoid"
    return (
        "set `softmax = true` below [output], or end the model in a sigmoid if an image may have"
        " several labels"
    )


def check_runs(engine: Engine, spec: ModelSpec, path: Path) -> None:
    """Refuse a file that the library of its engine cannot run, or that is not the model.

    Args:
        engine: of the file.
        spec: what the model should be.
        path: the file.

    Raises:
        ModelError: says which.
    """
    try:
        engine.warm_up([1])
    except ModelError:
        raise
    except Exception as error:
        # Libraries raise ValueError and RuntimeError, and what the file may make them raise.
        raise ModelError(f"{path}: cannot be loaded: {summary(error)}") from error
    check_output(spec, engine.predict)


def summary(error: Exception) -> str:
    """Return the line of what a library says that tells most."""
    said = str(error)
    if operations := _UNKNOWN_OPERATIONS.findall(said):
        return "it has no operation for " + ", ".join(operations)
    # Keras begins with what it was about to do, and ends with all that the file says of a layer.
    said = said.rpartition("Exception encountered: ")[2].partition(" Full object config:")[0]
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if lines and _OPENVINO.match(lines[0]):
        lines = [one for one in lines if not _OPENVINO.match(one) and not one.endswith(":")]
    return (lines or [type(error).__name__])[0]


def _shown(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
