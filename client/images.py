"""From what the caller has to the bytes of one image, within the limit."""

import os
from pathlib import Path
from typing import TypeAlias

import grpc

from .errors import InvalidImage

Image: TypeAlias = bytes | os.PathLike[str]
"""Encoded bytes, or the file that holds them."""


def load(image: Image, *, max_bytes: int) -> bytes:
    """Return the encoded bytes of `image`; blocks if it is a file.

    Checked here, because a message over the transport's limit would end a whole
    stream instead of failing alone.

    Raises:
        InvalidImage: it cannot be read, is empty, or has more than `max_bytes`.
    """
    encoded = image if isinstance(image, bytes) else _read(image, max_bytes)
    if not encoded:
        raise _invalid("IMAGE_EMPTY", "the image has no bytes")
    if len(encoded) > max_bytes:
        raise _invalid("IMAGE_TOO_LARGE", f"the image has more than {max_bytes:,} bytes")
    return encoded


def _read(path: os.PathLike[str], max_bytes: int) -> bytes:
    if not isinstance(path, os.PathLike):
        raise TypeError(f"an image is bytes or a pathlib.Path, not {type(path).__name__}")
    try:
        with Path(path).open("rb") as file:
            # One byte more shows that it is too large, however large it is.
            return file.read(max_bytes + 1)
    except OSError as error:
        raise _invalid("IMAGE_UNREADABLE", error.strerror or str(error)) from error
    except ValueError as error:
        # No file can have such a name: there is a NUL in it, or what cannot be encoded.
        raise _invalid("IMAGE_UNREADABLE", str(error)) from error


def _invalid(reason: str, message: str) -> InvalidImage:
    return InvalidImage(
        message, code=grpc.StatusCode.INVALID_ARGUMENT, reason=reason, field="image"
    )
