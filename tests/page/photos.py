"""Photos for the page, and what it says of them."""

import struct
import zlib
from typing import Final

from tests.page.browser import Page
from tests.stack import Colour, image_of

RED: Final = (200, 10, 10)
GREEN: Final = (10, 200, 10)
BLUE: Final = (10, 10, 200)

_END_BYTES: Final = 12
"""Length of the last chunk of every PNG."""


def photo(colour: Colour, name: str) -> tuple[str, str, bytes]:
    """Return name, type and bytes of a photo of one colour."""
    return name, "image/png", image_of(colour)


def first_labels(page: Page) -> list[str]:
    """Return the best label of each photo."""
    return [element.text for element in page.all(".result .labels li:first-child .label")]


def large(colour: Colour, size_bytes: int) -> bytes:
    """Return a PNG of one colour with so many more bytes, which mean nothing."""
    data = image_of(colour)
    chunk = b"prVt" + bytes(size_bytes)
    length, checksum = struct.pack(">I", size_bytes), struct.pack(">I", zlib.crc32(chunk))
    return data[:-_END_BYTES] + length + chunk + checksum + data[-_END_BYTES:]


def said(page: Page) -> str:
    """Return what was said last to those who do not see it."""
    return str(page.run("return document.getElementById('said').textContent"))


def live_said(page: Page) -> str:
    """Return what was said last to them of the live figures."""
    return str(page.run("return document.getElementById('live-said').textContent"))
