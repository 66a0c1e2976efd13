"""How far the scores of an engine are from TensorFlow's, on real photos."""

from pathlib import Path
from typing import Annotated, Final

import numpy as np
from pydantic import Field

from worker.decode import decode
from worker.engine import Engine, Float32Array, UInt8Array
from worker.model_spec import Frozen, InputRule, Precision

PHOTOS: Final = Path(__file__).with_name("photos")

MAX_PIXELS: Final = 1_000_000
"""Those photos are far smaller."""

TOLERANCE: Final = 1e-3
"""How far a score may be from TensorFlow's. Engines that compute in float32 differ by some 1e-6:
what is above this has computed something else."""

BF16_TOLERANCE: Final = 0.1
"""The same for bf16, which has three significant digits: for who asks for it, or whose model has it
or float16."""


class Agreement(Frozen):
    """How far apart two engines are."""

    photos: Annotated[int, Field(ge=1)]
    """How many were compared."""

    max_difference: float
    """Largest difference of a score, of any class and photo; 1 if one is not a number."""

    same_best: Annotated[float, Field(ge=0, le=1)]
    """Share of the photos that have the same best class."""

    def is_within_tolerance(self, precision: Precision) -> bool:
        """Return whether one may stand in for the other."""
        limit = TOLERANCE if precision == "float32" else BF16_TOLERANCE
        return self.max_difference <= limit and self.same_best == 1

    def __str__(self) -> str:
        same = round(self.same_best * self.photos)
        return (
            f"scores differ by up to {self.max_difference:.2g},"
            f" the best class is the same on {same} of {self.photos} photos"
        )


def photos(rule: InputRule) -> UInt8Array:
    """Return real photos as the model's input: each as it is, and mirrored."""
    files = sorted(PHOTOS.glob("*.jpg"))
    images = [decode(file.read_bytes(), rule, max_pixels=MAX_PIXELS) for file in files]
    return np.stack([*images, *(image[:, ::-1] for image in images)])


def scores_of(engine: Engine, images: UInt8Array) -> Float32Array:
    """Return the scores of an engine, one image at a time, so that a large model needs no more."""
    return np.concatenate([engine.predict(images[i : i + 1]) for i in range(len(images))])


def agreement(reference: Float32Array, scores: Float32Array) -> Agreement:
    """Compare scores with those of TensorFlow.

    Two classes that TensorFlow itself cannot tell apart may change places.

    Args:
        reference: of TensorFlow, shape (photos, classes).
        scores: of the same photos.
    """
    if scores.shape != reference.shape or not np.all(np.isfinite(scores)):
        return Agreement(photos=len(reference), max_difference=1, same_best=0)
    rows = np.arange(len(reference))
    lost = reference.max(axis=1) - reference[rows, scores.argmax(axis=1)]
    return Agreement(
        photos=len(reference),
        max_difference=float(np.abs(scores - reference).max()),
        same_best=float(np.mean(lost <= TOLERANCE)),
    )
