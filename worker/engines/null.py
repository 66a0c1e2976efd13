"""No model: `engine = "null"` checks that each payload arrived whole, and answers with a class.

For measuring everything but a model. A payload is not an image; it begins with
its own checksum:

    4 bytes   CRC-32 of the content, as of zlib, big-endian
    the rest  the content, any bytes

The class is the checksum's remainder by the number of classes, so a caller can
tell whether an answer is the answer to what it sent.
"""

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from dispatch.errors import ImageEmpty, ImageUndecodable
from worker.engine import Float32Array, UInt8Array

CHECKSUM_BYTES: Final = 4
PIXEL_BYTES: Final = 3


def sealed(content: bytes) -> bytes:
    """Return a payload that passes the check."""
    return zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "big") + content


def class_of(payload: bytes, classes: int) -> int:
    """Return the class that a payload is answered with.

    Args:
        payload: as `sealed` returns it.
        classes: how many the model has.
    """
    # The whole checksum has been compared; what is left of it fits one pixel.
    return int.from_bytes(payload[1:CHECKSUM_BYTES], "big") % classes


def checked(payload: bytes) -> UInt8Array:
    """Return the end of the checksum as an image of one pixel, in place of decoding.

    Raises:
        ImageEmpty: there are no bytes.
        ImageUndecodable: the payload does not begin with its checksum.
    """
    if not payload:
        raise ImageEmpty("the payload has no bytes")
    # A view: the check costs no copy of the payload.
    content = memoryview(payload)[CHECKSUM_BYTES:]
    if zlib.crc32(content) != int.from_bytes(payload[:CHECKSUM_BYTES], "big"):
        raise ImageUndecodable("the payload is damaged: it does not begin with its checksum")
    pixel = np.frombuffer(payload, np.uint8, count=PIXEL_BYTES, offset=1)
    return pixel.reshape(1, 1, PIXEL_BYTES)


class NullEngine:
    """Answers each checked payload with its class, certainly.

    Args:
        classes: how many there are.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Need none."""

    def predict(self, images: UInt8Array) -> Float32Array:
        """Score 1 for the class of each payload, 0 for all others; see `worker.engine.Engine`."""
        scores = np.zeros((len(images), self._classes), np.float32)
        for row, image in zip(scores, images, strict=True):
            row[int.from_bytes(image.tobytes(), "big") % self._classes] = 1
        return scores
