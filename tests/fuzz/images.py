"""Good images of every format and kind, from which bad ones are made."""

import io
import struct
import zlib
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import numpy as np
from PIL import Image

ORIENTATION: Final = 0x0112
SIDE: Final = 40


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    """Return an image as a file."""
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def photo(width: int = SIDE, height: int = SIDE) -> Image.Image:
    """Return something with smooth parts and rough ones."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    rough = np.random.default_rng(3).integers(0, 60, (height, width))
    channels = [255 * x / width, 255 * y / height, 120 + rough]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


def png_header(width: int, height: int, *, depth: int, colours: int, interlaced: int = 0) -> bytes:
    """Return signature and header of a PNG."""
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)


def interlaced_png(side: int = 16) -> bytes:
    """Return an Adam7 PNG, which Pillow reads and does not write."""
    rows = b""
    for x0, y0, dx, dy in (
        *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
        *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
    ):
        wide, high = -(-(side - x0) // dx), -(-(side - y0) // dy)
        rows += (b"\x00" + bytes(range(wide))) * high
    image = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return png_header(side, side, depth=8, colours=0, interlaced=1) + image


def bmp(width: int, height: int, body: bytes, *, bits: int = 8, compression: int = 0) -> bytes:
    """Return a BMP with a palette if its bits ask for one; compression 1 and 2 are runs."""
    palette = bytes(4 << bits) if bits <= 8 else b""
    offset = 14 + 40 + len(palette)
    return (
        b"BM"
        + struct.pack("<IHHI", offset + len(body), 0, 0, offset)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), *[0] * 4)
        + palette
        + body
    )


@cache
def samples() -> Mapping[str, bytes]:
    """Return good images by their kind."""
    plain = photo()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    frames = [Image.new("RGB", (SIDE, SIDE), (shade, 0, 99)) for shade in (9, 99, 199)]
    animated: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": 40}
    clear = plain.convert("RGBA")
    clear.putalpha(120)
    deep = Image.fromarray((np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * 40).astype(np.uint16))
    return {
        "jpeg": encoded(plain, "JPEG"),
        "jpeg-progressive": encoded(plain, "JPEG", progressive=True),
        "jpeg-cmyk": encoded(plain.convert("CMYK"), "JPEG"),
        "jpeg-grey": encoded(plain.convert("L"), "JPEG"),
        "jpeg-exif": encoded(plain, "JPEG", exif=exif),
        "jpeg-restarts": encoded(plain, "JPEG", restart_marker_blocks=1),
        "mpo": encoded(plain, "MPO", save_all=True, append_images=frames[:1]),
        "png": encoded(plain, "PNG", exif=exif),
        "png-1": encoded(plain.convert("1"), "PNG"),
        "png-16": encoded(deep, "PNG"),
        "png-palette": encoded(plain.quantize(16), "PNG", transparency=3),
        "png-alpha": encoded(clear, "PNG"),
        "png-grey-alpha": encoded(clear.convert("LA"), "PNG"),
        "png-interlaced": interlaced_png(),
        "apng": encoded(frames[0], "PNG", **animated),
        "webp": encoded(plain, "WEBP"),
        "webp-lossless": encoded(clear, "WEBP", lossless=True),
        "webp-animated": encoded(frames[0], "WEBP", **animated),
        "webp-exif": encoded(plain, "WEBP", exif=exif),
        "gif": encoded(plain, "GIF"),
        "gif-animated": encoded(frames[0], "GIF", **animated),
        "bmp": encoded(plain, "BMP"),
        "bmp-palette": encoded(plain.quantize(16), "BMP"),
        "bmp-runs": bmp(20, 3, b"\x14\x80\x00\x00" * 3 + b"\x00\x01", compression=1),
        "bmp-runs-4": bmp(20, 3, b"\x14\x81\x00\x00" * 3 + b"\x00\x01", bits=4, compression=2),
    }


@cache
def strangers() -> Mapping[str, bytes]:
    """Return what is no image of ours, and what is two things at once."""
    plain = photo()
    good = samples()
    archive = b"PK\x03\x04" + bytes(40) + b"PK\x05\x06" + bytes(18)
    page = b"<html><script>alert(1)</script></html>"
    return {
        "tiff": encoded(plain, "TIFF"),
        "ico": encoded(plain, "ICO"),
        "ppm": encoded(plain, "PPM"),
        "pdf": encoded(plain, "PDF"),
        "tga": encoded(plain, "TGA"),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "svg": b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "&a;&a;">]><svg>&a;</svg>',
        "text": b"hello, this is no image",
        "zip": archive,
        "gif-and-javascript": b"GIF89a/*" + good["gif"][8:] + b"*/=1;alert(1)",
        "jpeg-and-zip": good["jpeg"] + archive,
        "png-and-page": good["png"] + page,
        "bmp-and-pe": b"BM" + b"MZ" * 40,
        "jpeg-in-png": b"\x89PNG\r\n\x1a\n" + good["jpeg"],
        "png-in-gif": b"GIF89a" + good["png"],
        "riff-wave": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(24),
        "signatures": b"\xff\xd8\xff\x89PNG\r\n\x1a\nGIF89aBMRIFF",
        "empty": b"",
        "zeros": bytes(1000),
    }
