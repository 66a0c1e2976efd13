"""Images of a few bytes that ask for much work or memory."""

import struct
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from PIL import Image

from tests.fuzz.images import bmp, chunk, encoded, png_header, samples

ALLOWED: Final = 9_999
"""Side of a square that is just below the limit of pixels."""

MANY: Final = 60_000
END: Final = chunk(b"IEND", b"")
MIB: Final = 1 << 20


@cache
def zeros(size: int) -> bytes:
    """Return so many zeros, deflated."""
    packer = zlib.compressobj(9)
    whole, rest = divmod(size, MIB)
    parts = [packer.compress(bytes(MIB)) for _ in range(whole)]
    return b"".join([*parts, packer.compress(bytes(rest)), packer.flush()])


def png(width: int, height: int, *, depth: int, colours: int, extra: bytes = b"") -> bytes:
    """Return a black PNG."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
    row = (width * depth * channels + 7) // 8 + 1
    pixels = chunk(b"IDAT", zeros(row * height))
    return png_header(width, height, depth=depth, colours=colours) + extra + pixels + END


def small_png(extra: bytes) -> bytes:
    """Return a good PNG with something before its pixels."""
    return png(8, 8, depth=8, colours=2, extra=extra)


def lying_png(width: int, height: int) -> bytes:
    """Return a PNG that promises more than it has."""
    body = chunk(b"IDAT", zlib.compress(b"\x00"))
    return png_header(width, height, depth=8, colours=6) + body + END


def many_scans(width: int, height: int, count: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    data = encoded(Image.new("RGB", (width, height)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def three_of_four(marker: int, count: int) -> bytes:
    """Return a JPEG of four colours, of which each of many scans has three and no data."""
    frame = struct.pack(">BHHB", 8, ALLOWED, ALLOWED, 4)
    frame += b"".join(bytes([number, 0x11, 0]) for number in range(1, 5))
    tables = segment(0xDB, bytes(1) + b"\x01" * 64)
    for kind in (0x00, 0x10):
        tables += segment(0xC4, bytes([kind, 1]) + bytes(15) + b"\x00")
    scan = segment(0xDA, bytes((3, 1, 0, 2, 0, 3, 0, 0, 63, 0)))
    last = segment(0xDA, bytes((1, 4, 0, 0, 63, 0)))
    return b"\xff\xd8" + tables + segment(marker, frame) + scan * count + last + b"\xff\xd9"


def jpeg_with(extra: bytes) -> bytes:
    """Return a good JPEG with something before its tables."""
    data = samples()["jpeg"]
    return data[:2] + extra + data[2:]


def segment(marker: int, content: bytes) -> bytes:
    """Return a segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def deep_exif() -> bytes:
    """Return EXIF whose directories point at each other, and whose tags are all the same bytes."""
    count = 5_000
    head = b"II*\x00" + struct.pack("<LH", 8, count)
    tags = b"".join(struct.pack("<HHLL", 0x8769 + i, 4, 10_000, 8) for i in range(count))
    return b"Exif\x00\x00" + head + tags + struct.pack("<L", 8)


def gif(screen: int, frames: int, *, before: bytes = b"") -> bytes:
    """Return a GIF of many empty frames."""
    head = b"GIF89a" + struct.pack("<HHBBB", screen, screen, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + before + frame * frames + b";"


def big_webp() -> bytes:
    """Return an extended WebP of the largest canvas that there is."""
    data = bytearray(encoded(Image.new("RGBA", (20, 20)), "WEBP", exif=b"Exif\x00\x00"))
    data[24:30] = struct.pack("<I", 16_382)[:3] * 2
    return bytes(data)


def webp_chunks(count: int) -> bytes:
    """Return a WebP with so many chunks that nobody knows."""
    data = (
        encoded(Image.new("RGBA", (20, 20)), "WEBP", exif=b"Exif\x00\x00") + b"prVt\0\0\0\0" * count
    )
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


BOMBS: Final[Mapping[str, Callable[[], bytes]]] = {
    "png-1-bit": lambda: png(ALLOWED, ALLOWED, depth=1, colours=0),
    "png-alpha": lambda: png(ALLOWED, ALLOWED, depth=8, colours=6),
    "png-clear-colour": lambda: png(
        ALLOWED, ALLOWED, depth=8, colours=2, extra=chunk(b"tRNS", bytes(6))
    ),
    "png-16-bit": lambda: png(ALLOWED, ALLOWED, depth=16, colours=0),
    "png-tall": lambda: png(1, ALLOWED * ALLOWED, depth=8, colours=0),
    "png-tall-palette": lambda: png(
        1,
        ALLOWED * ALLOWED,
        depth=8,
        colours=3,
        extra=chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\x00"),
    ),
    "png-wide": lambda: png(ALLOWED * ALLOWED, 1, depth=8, colours=0),
    "png-too-large": lambda: lying_png(2**31 - 1, 2**31 - 1),
    "png-lying": lambda: lying_png(ALLOWED, ALLOWED),
    "png-profile": lambda: small_png(chunk(b"iCCP", b"x\x00\x00" + zeros(512 * MIB))),
    "png-texts": lambda: small_png(chunk(b"zTXt", b"x\x00\x00" + zeros(MIB - 1)) * 4_000),
    "png-international": lambda: small_png(
        chunk(b"iTXt", b"XML:com.adobe.xmp\x00\x01\x00\x00\x00" + zeros(512 * MIB))
    ),
    "png-pixels": lambda: (
        png_header(8, 8, depth=8, colours=2) + chunk(b"IDAT", zeros(512 * MIB)) + END
    ),
    "png-chunks": lambda: small_png(chunk(b"prVt", b"") * 1_300_000),
    "png-exif": lambda: small_png(chunk(b"eXIf", deep_exif()[6:])),
    "apng-frames": lambda: small_png(
        chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
        + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 2**31, 2**31, 0, 0, 1, 1, 2, 1)) * MANY
    ),
    "jpeg-allowed": lambda: encoded(Image.new("RGB", (ALLOWED, ALLOWED)), "JPEG", progressive=True),
    "jpeg-scans": lambda: many_scans(1000, 1000, 100_000),
    "jpeg-scans-allowed": lambda: many_scans(1000, 1000, 3_130),
    "jpeg-line": lambda: many_scans(30_500, 1, 65_000),
    "jpeg-line-allowed": lambda: many_scans(30_500, 1, 6_500),
    "jpeg-four-colours": lambda: three_of_four(0xC0, 18),
    "jpeg-four-colours-allowed": lambda: three_of_four(0xC0, 10),
    "jpeg-arithmetic": lambda: three_of_four(0xC9, 18),
    "jpeg-exif-segments": lambda: jpeg_with(segment(0xE1, b"Exif\x00\x00x") * 1_400_000),
    "jpeg-exif-deep": lambda: jpeg_with(segment(0xE1, deep_exif())),
    "jpeg-comments": lambda: jpeg_with(segment(0xFE, b"") * 4_000_000),
    "jpeg-fill": lambda: jpeg_with(b"\xff" * 16_000_000),
    "jpeg-profiles": lambda: jpeg_with(
        segment(0xE2, b"ICC_PROFILE\x00\x01\xff" + bytes(99)) * MANY
    ),
    "gif-frames": lambda: gif(8, 1_000_000),
    "gif-allowed": lambda: gif(ALLOWED, 1),
    "gif-too-large": lambda: gif(65_535, 1),
    "gif-comments": lambda: gif(8, 1, before=b"!\xfe" + b"\xff".ljust(256, b"x") * MANY + b"\x00"),
    "gif-blocks": lambda: gif(8, 1, before=b"!\xfe\x01x\x00" * 3_000_000),
    "webp-too-large": big_webp,
    "webp-chunks": lambda: webp_chunks(1_500_000),
    "webp-allowed": lambda: encoded(
        Image.new("RGBA", (ALLOWED, ALLOWED)), "WEBP", lossless=True, quality=0, method=0
    ),
    "bmp-lying": lambda: bmp(ALLOWED, ALLOWED, b"", bits=32),
    "bmp-too-large": lambda: bmp(2**31 - 1, -(2**31), b"", bits=24),
    "bmp-runs-line": lambda: bmp(ALLOWED * ALLOWED, 1, b"\x01\x00\x00\x00", compression=1),
    "bmp-runs-skip": lambda: bmp(2_000, 2_000, b"\x00\x02\xff\xff" * 99, compression=1),
    "bmp-runs-short": lambda: bmp(2_000, 2_000, b"\x01\x00" * 8_000_000, compression=1),
    "bmp-runs-4": lambda: bmp(2_000, 2_000, b"\xff\x12\x00\x00" * 9_999, bits=4, compression=2),
}


@cache
def bomb(name: str) -> bytes:
    """Return one of `BOMBS`; all are below the limit of bytes."""
    return BOMBS[name]()
