"""What of a file its first frame is decoded from; the rest is left out before Pillow sees it.

Pillow looks at all metadata while it opens a file, part by part, in Python: a file of
16 MiB that is nothing but small parts keeps it busy for a quarter of a minute, and one with
many EXIF segments, which it puts together one by one, for minutes. Of all that we need the
orientation. And it decodes each scan that a progressive JPEG has, however many
there are: each costs a pass over all blocks of 8 x 8 pixels and may have ten bytes.
"""

import re
import struct
from collections.abc import Mapping
from math import ceil
from typing import Final, NamedTuple

from dispatch.errors import ImageFormatUnsupported, ImageTooLarge, ImageUndecodable
from worker.image_format import is_gif, is_png

# A JPEG of 16 MiB has 256 full segments, a PNG that was written in pieces of 4 KB has
# 4096; reading as many as this takes a tenth of a second.
MAX_PARTS: Final = 65_536
"""Most segments of a JPEG, chunks of a PNG, or blocks before the first frame of a GIF."""

# Of those that libjpeg writes unless it is told otherwise, a progressive image of three colours
# needs 14 and one of four 24.
MAX_FULL_SCANS: Final = 32
"""How often a JPEG that has as many pixels as is allowed may have a colour in a scan; smaller ones
may more often."""

BLOCK_SIDE: Final = 8
"""A JPEG is decoded in blocks of this many pixels by as many, the last of which may be empty."""

UPRIGHT: Final = 1
"""The EXIF orientation of an image that need not be turned."""

_ORIENTATION_TAG: Final = 0x0112
_WHOLE_NUMBERS: Final[Mapping[int, str]] = {1: "B", 3: "H", 4: "L"}
"""EXIF types of whole numbers, for `struct`."""

_EXIF: Final = b"Exif\x00\x00"

# All but stuffed zeros, restarts, fill bytes, and TEM, which has no content either.
_JPEG_MARKER: Final = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of segments that say how large the image is, and how it is encoded."""

# All that browsers show. In arithmetic coding a scan takes no bytes at all, and its decoder takes
# ten times as long for a block. What is lossless has no blocks.
_ACCEPTED_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
"""Those of images in Huffman coding, sequential or progressive."""

_SEQUENTIAL: Final = (b"\xc0", b"\xc1")
"""Those of images each of whose pixels is in one scan alone."""

_PNG_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_GIF_HEADER_BYTES: Final = 13


class BareImage(NamedTuple):
    """A file without what is not needed."""

    data: bytes

    orientation: int
    """As EXIF has it, 1 to 8; `UPRIGHT` also if the file does not say."""


def bare(data: bytes, *, max_pixels: int) -> BareImage:
    """Return what the first frame is decoded from.

    Args:
        data: an image whose beginning was recognised.
        max_pixels: most pixels that an image may have.

    Raises:
        ImageTooLarge: there are too many parts or scans.
        ImageUndecodable: it is damaged or cut short.
        ImageFormatUnsupported: it is a JPEG of a rare kind.
    """
    if data.startswith(b"\xff\xd8"):
        return _bare_jpeg(data, max_pixels)
    if is_png(data):
        return _bare_png(data)
    if is_gif(data):
        return BareImage(_bare_gif(data), UPRIGHT)
    return BareImage(data, UPRIGHT)


def orientation_of(exif: bytes) -> int:
    """Return the orientation that EXIF metadata says; `UPRIGHT` if it says none, or is damaged.

    Sources: CIPA DC-008 (Exif 2.32), section 4.6.2; TIFF 6.0, section 2.
    """
    tiff = exif.removeprefix(_EXIF)
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return UPRIGHT
    try:
        (directory,) = struct.unpack_from(f"{order}L", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == _ORIENTATION_TAG and kind in _WHOLE_NUMBERS:
                (value,) = struct.unpack_from(order + _WHOLE_NUMBERS[kind], tiff, entry + 8)
                return int(value) if 1 <= value <= 8 else UPRIGHT  # noqa: PLR2004
    except struct.error:
        pass
    return UPRIGHT


def _bare_jpeg(data: bytes, max_pixels: int) -> BareImage:
    """Leave out comments and all application segments but those that tell the colours.

    Source: ITU-T T.81, annex B.
    """
    kept = [data[:2]]
    orientation, scans, blocks, position = UPRIGHT, 0, 0, 2
    frame = b""
    for _ in range(MAX_PARTS):
        found = _JPEG_MARKER.search(data, position)
        if scans:
            kept.append(data[position : found.start() if found else len(data)])
        if found is None:
            break
        marker = found[1][0]
        if marker == _EOI:
            kept.append(found[0])
            break
        segment = _jpeg_segment(data, found.start())
        position = found.start() + len(segment)
        if marker == _APP1 and segment[4:].startswith(_EXIF) and orientation == UPRIGHT:
            orientation = orientation_of(segment[4:])
        if marker in _FRAMES:
            _check_kind(marker)
            frame = segment
        if marker == _SOS:
            if _is_all_of(frame, segment):
                # To look for the end of it takes as long as a twentieth of decoding.
                kept.append(data[found.start() :])
                break
            scans += 1
            blocks += _blocks(frame, segment, max_pixels)
            _check_blocks(blocks, scans, max_pixels)
        if not (_APP0 < marker <= _APP15 or marker == _COM) or marker == _APP14:
            kept.append(segment)
    else:
        raise _too_many_parts()
    return BareImage(b"".join(kept), orientation)


def _is_all_of(frame: bytes, scan: bytes) -> bool:
    """Return whether a scan has all components of an image at once: no decoder reads another."""
    return frame[1:2] in _SEQUENTIAL and frame[9:10] == scan[4:5]


def _jpeg_segment(data: bytes, start: int) -> bytes:
    """Return a segment with its marker."""
    if data[start + 1] == _SOI:
        return data[start : start + 2]
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    if start + 2 + length > len(data):
        raise ImageUndecodable("the image is cut short")
    if length < len(b"LL"):
        raise ImageUndecodable("the image is damaged: a segment is shorter than its length")
    return data[start : start + 2 + length]


def _check_kind(frame_marker: int) -> None:
    if frame_marker not in _ACCEPTED_FRAMES:
        raise ImageFormatUnsupported(
            "the image is a JPEG in arithmetic coding, or lossless; only those in Huffman coding"
            " are accepted, sequential or progressive"
        )


def _blocks(frame: bytes, scan: bytes, max_pixels: int) -> int:
    """Return how many blocks a decoder goes through for a scan, at most.

    As if each colour had as many as the one that has most: which one a scan has need not be known.
    """
    if len(frame) <= len(b"__LLPHHWWN") or len(scan) <= len(b"__LLN"):
        return 0  # no decoder goes on
    height, width = int.from_bytes(frame[5:7]), int.from_bytes(frame[7:9])
    if height * width > max_pixels:
        return 0  # refused for those
    factors = frame[11::3] or b"\x11"
    across = max(1, *(each >> 4 for each in factors))
    down = max(1, *(each & 15 for each in factors))
    # Where colours have not the same number of pixels, they come in groups of blocks, all whole.
    columns = ceil(width / (BLOCK_SIDE * across)) * across
    rows = ceil(height / (BLOCK_SIDE * down)) * down
    return columns * rows * scan[4]


def _check_blocks(blocks: int, scans: int, max_pixels: int) -> None:
    most = MAX_FULL_SCANS * max_pixels // BLOCK_SIDE**2
    if blocks > most:
        raise ImageTooLarge(
            f"the image is decoded in {scans} scans or more, which take {blocks} blocks of"
            f" {BLOCK_SIDE} x {BLOCK_SIDE} pixels; at most {most} are accepted"
        )


def _bare_png(data: bytes) -> BareImage:
    """Leave out texts, profiles, and all but the first frame.

    Source: W3C, Portable Network Graphics, section 5.
    """
    kept = [data[:8]]
    orientation, position = UPRIGHT, 8
    for _ in range(MAX_PARTS):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        end = position + 12 + length
        if kind in _PNG_CHUNKS:
            kept.append(data[position:end])
        elif kind == b"eXIf":
            orientation = orientation_of(data[position + 8 : end - 4])
        if kind == b"IEND" or end >= len(data):
            break
        position = end
    else:
        raise _too_many_parts()
    return BareImage(b"".join(kept), orientation)


def _bare_gif(data: bytes) -> bytes:
    """Leave out the extensions before the first frame, but for the one that controls it.

    Source: CompuServe, Graphics Interchange Format 89a, sections 15, 18 and 23.
    """
    flags = data[10] if len(data) > _GIF_HEADER_BYTES else 0
    begin = position = _GIF_HEADER_BYTES + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    control = b""
    blocks = 0
    while data[position : position + 1] == b"!":
        extension = position
        position += 2
        while position < len(data) and data[position]:
            position += 1 + data[position]
            blocks += 1
            if blocks > MAX_PARTS:
                raise _too_many_parts()
        position += 1
        blocks += 1
        if data[extension + 1 : extension + 2] == b"\xf9":
            control = data[extension:position]
    return data[:begin] + control + data[position:]


def _too_many_parts() -> ImageTooLarge:
    return ImageTooLarge(f"the image is made of more than {MAX_PARTS} parts")
