"""What the loop needs from a model, whatever runs it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
"""Pixels: decoded RGB, 0 to 255."""

Float32Array = npt.NDArray[np.float32]
"""Scores."""


class Engine(Protocol):
    """A model that is loaded; its methods block, and are called from one thread at a time."""

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run the model once on an empty batch of each size, so that no caller pays for the first.

        Args:
            batch_sizes: how many images each of the runs has.
        """

    def predict(self, images: UInt8Array) -> Float32Array:
        """Score a batch.

        Args:
            images: decoded RGB of the model's input size, shape (batch, height, width, 3), in one
                piece of memory in which other images will lie after the return: an engine may
                read it in place, without a copy, and keeps no view of it.

        Returns:
            Probabilities, shape (batch, classes), rows in the order of `images`.

        Raises:
            Exception: whatever the model raises; the batch has no scores.
        """
