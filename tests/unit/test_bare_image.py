"""What is left out of a file before it is decoded, and what is refused for being endless."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dispatch.errors import ImageFormatUnsupported, ImageTooLarge, ImageUndecodable
from tests.fuzz.bombs import segment
from tests.fuzz.images import chunk, encoded
from worker.bare_image import MAX_PARTS, UPRIGHT, bare, orientation_of
from worker.decode import MAX_RUN_LENGTH_PIXELS, decode
from worker.model_spec import InputRule

MAX_PIXELS = 1_000_000
RULE = InputRule(width=8, height=8, resize="stretch")


def noise(side: int = 40) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(7).integers(0, 255, (side, side, 3), dtype=np.uint8)
    )


def exif_of(orientation: int, order: str = "<", kind: str = "H") -> bytes:
    code = {"B": 1, "H": 3, "L": 4}[kind]
    value = struct.pack(order + kind, orientation).ljust(4, b"\x00")
    head = b"II*\x00" if order == "<" else b"MM\x00*"
    entry = struct.pack(f"{order}HHL", 0x0112, code, 1) + value
    return head + struct.pack(f"{order}LH", 8, 1) + entry + bytes(4)


def bare_data(data: bytes) -> bytes:
    return bare(data, max_pixels=MAX_PIXELS).data


@pytest.mark.parametrize("is_progressive", [False, True])
def test_metadata_of_a_jpeg_does_not_reach_its_decoder(*, is_progressive: bool) -> None:
    plain = encoded(noise(), "JPEG", progressive=is_progressive)
    extra = [
        segment(0xE1, b"Exif\x00\x00" + exif_of(6)),
        *(segment(0xE1, b"Exif\x00\x00x") for _ in range(1000)),
        segment(0xE2, b"MPF\x00" + exif_of(1)),
        segment(0xED, b"Photoshop 3.0\x00"),
        segment(0xFE, b"a comment"),
    ]
    after = b"and what comes after the end"
    full = plain[:2] + b"".join(extra) + plain[2:] + after
    # Where there is only one scan, nobody looks for its end.
    kept = plain if is_progressive else plain + after
    assert bare(full, max_pixels=MAX_PIXELS) == (kept, 6)


def with_a_scan_for_each_colour(image: Image.Image) -> bytes:
    """Return a sequential JPEG as Pillow does not write it, made of three grey ones."""
    greys = [encoded(channel, "JPEG") for channel in image.convert("YCbCr").split()]
    head = greys[0][: greys[0].index(b"\xff\xda")]
    frame = head.index(b"\xff\xc0")
    size = head[frame + 5 : frame + 9]
    colours = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    after = frame + 2 + int.from_bytes(head[frame + 2 : frame + 4], "big")
    scans = [
        segment(0xDA, bytes([1, number, 0, 0, 63, 0])) + grey[grey.index(b"\xff\xda") + 10 : -2]
        for number, grey in enumerate(greys, 1)
    ]
    new_frame = segment(0xC0, b"\x08" + size + b"\x03" + colours)
    return head[:frame] + new_frame + head[after:] + b"".join(scans) + b"\xff\xd9"


def test_a_sequential_jpeg_of_several_scans_is_looked_at_to_its_end() -> None:
    image = noise()
    plain = with_a_scan_for_each_colour(image)
    last = plain.rindex(b"\xff\xda")
    full = plain[:last] + segment(0xFE, b"a comment") + plain[last:] + b"after the end"
    assert bare_data(full) == plain
    decoded = np.asarray(Image.open(io.BytesIO(plain)).convert("RGB")).astype(int)
    assert abs(decoded - np.asarray(image)).mean() < 30


def test_metadata_of_a_png_does_not_reach_its_decoder() -> None:
    plain = encoded(noise(), "PNG")
    end_of_header = 8 + 12 + 13
    extra = chunk(b"iCCP", b"x\x00\x00") + chunk(b"eXIf", exif_of(3)) + chunk(b"zTXt", b"x\x00\x00")
    full = plain[:end_of_header] + extra + plain[end_of_header:] + b"and what comes after the end"
    assert bare(full, max_pixels=MAX_PIXELS) == (plain, 3)


def test_other_extensions_of_a_gif_do_not_reach_its_decoder() -> None:
    plain = encoded(noise().quantize(4), "GIF", transparency=0)
    first = plain.index(b"!\xf9")
    full = plain[:first] + b"!\xfe\x05hello\x00" * 100 + plain[first:]
    assert len(bare_data(full)) <= len(plain)
    after, before = Image.open(io.BytesIO(bare_data(full))), Image.open(io.BytesIO(plain))
    assert after.convert("RGBA").tobytes() == before.convert("RGBA").tobytes()


@pytest.mark.parametrize(
    ("format_", "mode", "options"),
    [
        ("JPEG", "RGB", {"quality": 80}),
        ("JPEG", "RGB", {"progressive": True, "restart_marker_blocks": 1, "comment": b"\xff\xda"}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "L", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "1", {}),
        ("GIF", "P", {"transparency": 3, "comment": b"hello"}),
        ("BMP", "RGB", {}),
        ("WEBP", "RGBA", {"exif": b"Exif\x00\x00" + exif_of(1)}),
    ],
)
def test_nothing_is_left_out_that_shows(format_: str, mode: str, options: Any) -> None:
    image = noise().quantize(16) if mode == "P" else noise().convert(mode)
    full = encoded(image, format_, **options)
    before, after = Image.open(io.BytesIO(full)), Image.open(io.BytesIO(bare_data(full)))
    assert after.mode == before.mode
    assert after.convert("RGBA").tobytes() == before.convert("RGBA").tobytes()


def with_scans(width: int, height: int, scans: int) -> bytes:
    """Return a JPEG whose last scan is repeated."""
    data = encoded(Image.new("RGB", (width, height)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def frame(marker: int, width: int, height: int, colours: int) -> bytes:
    """Return the beginning of a JPEG of some kind."""
    components = b"".join(bytes([number, 0x11, 0]) for number in range(1, colours + 1))
    head = struct.pack(">BHHB", 8, height, width, colours)
    return b"\xff\xd8" + segment(0xDB, bytes(1) + b"\x01" * 64) + segment(marker, head + components)


def scan(*colours: int) -> bytes:
    """Return a scan of a sequential JPEG that has no data."""
    components = b"".join(bytes([number, 0]) for number in colours)
    return segment(0xDA, bytes([len(colours)]) + components + bytes([0, 63, 0]))


# One line is decoded as eight; one in which colours are smaller, as 16.
@pytest.mark.parametrize(("width", "height", "scans"), [(1000, 1000, 40), (30_000, 1, 70)])
def test_a_jpeg_of_many_scans_is_refused(width: int, height: int, scans: int) -> None:
    with pytest.raises(ImageTooLarge, match="at most 500000 are accepted"):
        decode(with_scans(width, height, scans), RULE, max_pixels=MAX_PIXELS)


def test_a_small_jpeg_may_have_more_scans() -> None:
    assert decode(with_scans(200, 200, 100), RULE, max_pixels=MAX_PIXELS).shape == (8, 8, 3)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_the_usual_scans_are_accepted_of_the_most_pixels(mode: str) -> None:
    data = encoded(Image.new(mode, (1000, 1000)), "JPEG", progressive=True, subsampling=0)
    assert decode(data, RULE, max_pixels=MAX_PIXELS).shape == (8, 8, 3)


def test_each_colour_of_a_scan_counts() -> None:
    # As few scans as this would be accepted of one colour each.
    data = frame(0xC0, 1000, 1000, 4) + scan(1, 2, 3) * 11 + scan(4)
    with pytest.raises(ImageTooLarge, match="11 scans or more"):
        decode(data, RULE, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF])
def test_a_jpeg_that_is_not_in_huffman_coding_is_refused(marker: int) -> None:
    data = frame(marker, 125, 80, 4) + scan(1, 2, 3) * 18 + scan(4)
    with pytest.raises(ImageFormatUnsupported, match="arithmetic coding"):
        decode(data, RULE, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("cut", [0, 2, 6, 8, 9])
def test_scans_of_a_jpeg_without_a_size_are_not_counted(cut: int) -> None:
    data = b"\xff\xd8" + segment(0xC2, bytes(cut)) + segment(0xDA, b"") + scan(1) * 100
    with pytest.raises(ImageUndecodable):
        decode(data, RULE, max_pixels=MAX_PIXELS)


def test_scans_are_counted_behind_what_looks_like_the_end() -> None:
    data = with_scans(1000, 1000, 10_000)
    hidden = data.index(b"\xff\xda")
    data = data[:hidden] + segment(0xFE, b"\xff\xd9") + data[hidden:]
    with pytest.raises(ImageTooLarge, match="scans"):
        decode(data, RULE, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF"])
def test_a_file_of_endless_parts_is_refused(format_: str) -> None:
    plain = encoded(noise().quantize(4).convert("RGB"), format_)
    first = {
        "JPEG": 2,
        "PNG": 8 + 12 + 13,
        "GIF": plain.index(b",", 13) if format_ == "GIF" else 0,
    }[format_]
    part = {"JPEG": segment(0xFE, b""), "PNG": chunk(b"prVt", b""), "GIF": b"!\xfe\x01x\x00"}
    data = plain[:first] + part[format_] * (MAX_PARTS + 1) + plain[first:]
    with pytest.raises(ImageTooLarge, match=f"{MAX_PARTS} parts"):
        decode(data, RULE, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_a_jpeg_that_ends_within_its_header_is_cut_short(share: float) -> None:
    data = encoded(noise(), "JPEG", comment=bytes(60_000))
    with pytest.raises(ImageUndecodable):
        decode(data[: int(len(data) * share)], RULE, max_pixels=MAX_PIXELS)


def in_runs(width: int, height: int, codes: bytes) -> bytes:
    """Return a BMP of 8 bits per pixel, encoded in runs."""
    palette = b"".join(bytes((grey, grey, grey, 0)) for grey in range(256))
    offset = 14 + 40 + len(palette)
    header = struct.pack("<IHHI", offset + len(codes), 0, 0, offset)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(codes), 0, 0, 256, 0)
    return b"BM" + header + info + palette + codes


def test_a_bmp_in_runs_is_decoded() -> None:
    grey = in_runs(20, 2, b"\x14\x80\x00\x00" * 2 + b"\x00\x01")
    assert (decode(grey, RULE, max_pixels=MAX_PIXELS) == 0x80).all()


def test_a_large_bmp_in_runs_is_refused_by_its_header() -> None:
    data = in_runs(MAX_RUN_LENGTH_PIXELS + 1, 1, b"\x01\x00\x00\x00")
    with pytest.raises(ImageTooLarge, match=f"at most {MAX_RUN_LENGTH_PIXELS}"):
        decode(data, RULE, max_pixels=100_000_000)


def test_runs_that_show_nothing_are_not_read() -> None:
    useless = in_runs(20, 2, b"\x00\x00" * 1_000_000 + b"\x14\x80\x00\x00" * 2)
    with pytest.raises(ImageUndecodable, match="cut short"):
        decode(useless, RULE, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["B", "H", "L"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\x00\x00"])
def test_orientation_is_read(order: str, kind: str, prefix: bytes) -> None:
    for orientation in range(1, 9):
        assert orientation_of(prefix + exif_of(orientation, order, kind)) == orientation


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_there_is_not_is_upright(orientation: int) -> None:
    assert orientation_of(exif_of(orientation)) == UPRIGHT


@given(st.binary(max_size=40), st.integers(0, 40))
def test_damaged_metadata_is_upright_or_read(noise: bytes, at: int) -> None:
    exif = exif_of(6)
    assert 1 <= orientation_of(exif[:at] + noise + exif[at + len(noise) :]) <= 8
