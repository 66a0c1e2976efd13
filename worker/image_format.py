"""Tells from their first bytes what a caller sent."""

from collections.abc import Mapping
from typing import Final

ACCEPTED: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Formats that are decoded, as Pillow names them."""

ACCEPTED_NAMES: Final = "JPEG, PNG, WebP, GIF or BMP"

_ACCEPTED_SIGNATURES: Final = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
)

# Not exhaustive: what people send by mistake, so that the message can say so.
_OTHER_SIGNATURES: Final[Mapping[bytes, str]] = {
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"%PDF": "PDF",
    b"\x00\x00\x01\x00": "an icon (ICO)",
    b"8BPS": "Photoshop (PSD)",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "gzip data",
    b"data:": "a data URL; send the bytes themselves",
    b"/9j/": "base64 text; send the bytes themselves",
    b"iVBORw0KGgo": "base64 text; send the bytes themselves",
}

_PNG_HEADER_BYTES: Final = 24
_GIF_HEADER_BYTES: Final = 13
_WEBP_HEADER_BYTES: Final = 30

_ISO_MEDIA_BRANDS: Final[Mapping[bytes, str]] = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"mif1": "HEIF",
}


def is_accepted(data: bytes) -> bool:
    """Return whether the bytes begin like one of our formats, as far as they go."""
    if data[:4] == b"RIFF"[: len(data)]:
        return data[8:12] == b"WEBP"[: max(0, len(data) - 8)]
    return any(
        data[: len(signature)] == signature[: len(data)] for signature in _ACCEPTED_SIGNATURES
    )


def is_png(data: bytes) -> bool:
    """Return whether this is a PNG, by its signature."""
    return data.startswith(b"\x89PNG\r\n\x1a\n")


def is_gif(data: bytes) -> bool:
    """Return whether this is a GIF, by its signature."""
    return data.startswith((b"GIF87a", b"GIF89a"))


def png_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height that the header of a PNG promises; None if it has none.

    Two big-endian numbers of 32 bits in the chunk IHDR, which comes first. Source:
    W3C, Portable Network Graphics, section 11.2.1.
    """
    if not is_png(data) or data[12:16] != b"IHDR" or len(data) < _PNG_HEADER_BYTES:
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def gif_size(data: bytes) -> tuple[int, int] | None:
    """Return the larger of the screen and the first frame of a GIF; None if it has neither.

    Source: CompuServe, Graphics Interchange Format 89a, sections 18 to 20.
    """
    if not is_gif(data) or len(data) < _GIF_HEADER_BYTES:
        return None
    width = int.from_bytes(data[6:8], "little")
    height = int.from_bytes(data[8:10], "little")
    flags = data[10]
    position = _GIF_HEADER_BYTES + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    # Extensions: two bytes, then blocks that begin with their length, until an empty one.
    while data[position : position + 1] == b"!":
        position += 2
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
    frame = data[position : position + 9]
    if frame[:1] == b"," and len(frame) == len(b",LLTTWWHH"):
        left, top, wide, high = (
            int.from_bytes(frame[at : at + 2], "little") for at in range(1, 9, 2)
        )
        return max(width, left + wide), max(height, top + high)
    return width, height


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height that the header of a WebP image promises; None if it has none.

    Its three kinds of chunk: extended (24 bits each, less one), lossless (14
    bits each, less one) and lossy (14 bits each, after a start code). Source:
    RFC 9649.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < _WEBP_HEADER_BYTES:
        return None
    match data[12:16]:
        case b"VP8X":
            return (
                int.from_bytes(data[24:27], "little") + 1,
                int.from_bytes(data[27:30], "little") + 1,
            )
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            return (
                int.from_bytes(data[26:28], "little") & 0x3FFF,
                int.from_bytes(data[28:30], "little") & 0x3FFF,
            )
    return None


def guess(data: bytes) -> str:
    """Return what bytes that are none of our formats seem to be, for a message; or nothing."""
    for signature, name in _OTHER_SIGNATURES.items():
        if data.startswith(signature):
            return name
    if data[4:8] == b"ftyp":
        return _ISO_MEDIA_BRANDS.get(data[8:12], "a video")
    beginning = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if beginning.startswith((b"<!doctype html", b"<html")):
        return "HTML"
    if beginning.startswith((b"<svg", b"<?xml")):
        return "SVG or XML"
    if _is_text(data[:512]):
        return "text"
    return ""


def _is_text(data: bytes) -> bool:
    return all(byte >= ord(" ") or byte in b"\t\r\n" for byte in data) and data.isascii()
