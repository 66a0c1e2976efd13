"""What the command line says of limits, without loading gRPC for it."""

from typing import Final

MAX_IMAGE_BYTES: Final = 16 * 1024 * 1024
"""Largest encoded image a server accepts unless it was told otherwise."""

MOST_IMAGE_BYTES: Final = 512 * 1024 * 1024
"""The most that one can be told to accept."""
