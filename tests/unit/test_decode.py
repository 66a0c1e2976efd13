import io
import random
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dispatch.errors import (
    ImageEmpty,
    ImageFormatUnsupported,
    ImageTooLarge,
    ImageUndecodable,
    InvalidImage,
)
from worker.decode import MAX_ROWS, _draft, _loaded, _plan, decode
from worker.engine import UInt8Array
from worker.model_spec import InputRule

STRETCH = InputRule(width=8, height=8, resize="stretch")
CROP = InputRule(width=32, height=32, resize="crop")
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
MAX_PIXELS = 20_000_000


def encoded(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def decoded(data: bytes, rule: InputRule = STRETCH, max_pixels: int = MAX_PIXELS) -> UInt8Array:
    return decode(data, rule, max_pixels=max_pixels)


def photo(width: int = 64, height: int = 48) -> Image.Image:
    """A smooth image with some texture, different at each corner."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    red = 255 * x / width
    green = 255 * y / height
    blue = 127 + 100 * np.sin(x / 9) * np.cos(y / 7)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


SAMPLES = {
    "JPEG": encoded(photo(), "JPEG"),
    "progressive": encoded(photo(), "JPEG", progressive=True),
    "PNG": encoded(photo()),
    "palette": encoded(photo().quantize(16)),
    "WebP": encoded(photo(), "WEBP"),
    "lossless": encoded(photo(), "WEBP", lossless=True),
    "GIF": encoded(photo(), "GIF"),
    "BMP": encoded(photo(), "BMP"),
    "CMYK": encoded(photo().convert("CMYK"), "JPEG"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_becomes_rgb_of_the_input_size(name: str) -> None:
    image = decoded(SAMPLES[name], InputRule(width=16, height=12, resize="stretch"))
    assert image.shape == (12, 16, 3)
    assert image.dtype == np.uint8
    expected = np.asarray(photo().resize((16, 12), Image.Resampling.BICUBIC), float)
    assert np.abs(image - expected).mean() < 20


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_keeps_its_colour(mode: str) -> None:
    format_ = "JPEG" if mode == "CMYK" else "PNG"
    if mode == "I;16":
        image = Image.fromarray(np.full((20, 20), 65535, np.uint16))
    elif mode == "PA":
        image = Image.new("RGBA", (20, 20), (255, 255, 255, 255)).quantize(4)
    else:
        image = Image.new("RGB", (20, 20), (255, 255, 255)).convert(mode)
    assert (decoded(encoded(image, format_)) == 255).all()


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    image = Image.fromarray(np.full((20, 20), 0x4000, np.uint16))
    assert (decoded(encoded(image)) == 0x40).all()


def test_transparent_parts_are_white() -> None:
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert (decoded(encoded(image)) == 255).all()


def test_half_transparent_red_on_white_is_pink() -> None:
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 128))
    assert np.abs(decoded(encoded(image))[4, 4].astype(int) - (255, 127, 127)).max() <= 1


def test_hidden_colour_does_not_bleed_into_what_is_seen() -> None:
    image = Image.new("RGBA", (40, 40), (*GREEN, 0))
    image.paste((*RED, 255), (0, 0, 20, 40))
    assert decoded(encoded(image))[:, :, 1].min() == 0
    assert (decoded(encoded(image))[:, :, 0] == 255).all()


def test_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([0, 0, 255])
    assert (decoded(encoded(image, transparency=0)) == 255).all()
    assert (decoded(encoded(image, "GIF", transparency=0)) == 255).all()


def test_transparent_one_of_16_bit_greys_is_white_and_no_other() -> None:
    greys = np.full((8, 8), 0x4000, np.uint16)
    greys[:, 4:] = 0x4001
    data = encoded(Image.fromarray(greys), transparency=0x4000)
    image = decoded(data, STRETCH)
    assert (image[:, :4] == 255).all()
    assert (image[:, 4:] == 0x40).all()


def test_transparent_colour_of_an_rgb_image_is_white() -> None:
    image = Image.new("RGB", (20, 20), BLUE)
    assert (decoded(encoded(image, transparency=BLUE)) == 255).all()


def test_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in (RED, GREEN, BLUE)]
    for format_ in ("GIF", "WEBP", "PNG"):
        options: dict[str, Any] = {"lossless": True} if format_ == "WEBP" else {}
        data = encoded(frames[0], format_, save_all=True, append_images=frames[1:], **options)
        assert (decoded(data)[4, 4] == RED).all(), format_


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("resize", ["crop", "stretch", "fit"])
def test_image_is_turned_upright(orientation: int, format_: str, resize: Any) -> None:
    stored_by = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    upright = stored = photo(96, 64)
    for turn in stored_by:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    rule = InputRule(width=24, height=12, resize=resize)
    turned = decoded(encoded(stored, format_, exif=exif), rule).astype(int)
    plain = decoded(encoded(upright), rule).astype(int)
    assert np.abs(turned - plain).mean() < 6


def test_damaged_exif_is_no_reason_to_refuse() -> None:
    data = encoded(photo(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert decoded(data).shape == (8, 8, 3)


def test_crop_keeps_the_centre() -> None:
    image = Image.new("RGB", (300, 100), RED)
    image.paste(GREEN, (100, 0, 200, 100))
    assert (decoded(encoded(image), CROP)[:, 1:-1] == GREEN).all()


def test_crop_fraction_keeps_the_middle_of_the_centre() -> None:
    image = Image.new("RGB", (100, 100), RED)
    image.paste(GREEN, (25, 25, 75, 75))
    half = InputRule(width=10, height=10, resize="crop", crop_fraction=0.5)
    assert (decoded(encoded(image), half)[1:-1, 1:-1] == GREEN).all()


def test_crop_has_the_shape_of_the_input() -> None:
    image = Image.new("RGB", (100, 100), RED)
    image.paste(GREEN, (0, 25, 100, 75))
    wide = InputRule(width=40, height=20, resize="crop")
    assert (decoded(encoded(image), wide)[1:-1] == GREEN).all()


def test_fit_keeps_the_shape_and_pads() -> None:
    image = Image.new("RGB", (200, 100), GREEN)
    rule = InputRule(width=20, height=20, resize="fit", padding=BLUE)
    result = decoded(encoded(image), rule)
    assert (result[:5] == BLUE).all()
    assert (result[5:15] == GREEN).all()
    assert (result[15:] == BLUE).all()


def test_one_pixel_is_an_image() -> None:
    for resize in ("crop", "stretch", "fit"):
        rule = InputRule(width=8, height=8, resize=resize)
        assert (decoded(encoded(Image.new("RGB", (1, 1), RED)), rule) == RED).all()


def test_very_narrow_image_is_decoded() -> None:
    narrow = encoded(Image.new("L", (1, 60_000), 9))
    for resize in ("crop", "stretch", "fit"):
        assert decoded(narrow, InputRule(width=8, height=8, resize=resize)).shape == (8, 8, 3)


def test_large_jpeg_is_not_decoded_in_full() -> None:
    rule = InputRule(width=224, height=224, crop_fraction=0.875)
    data = encoded(photo(4000, 3000), "JPEG", quality=92)

    image = Image.open(io.BytesIO(data))
    assert _draft(image, _plan(image.size, rule, is_sideways=False)) == (500, 375)
    assert _loaded(image).size == (500, 375)

    side = 3000 * 0.875
    box = ((4000 - side) / 2, (3000 - side) / 2, (4000 + side) / 2, (3000 + side) / 2)
    full = Image.open(io.BytesIO(data)).resize((224, 224), Image.Resampling.BICUBIC, box)
    difference = np.abs(decoded(data, rule).astype(int) - np.asarray(full, int))
    assert difference.mean() < 1.2
    assert difference.max() <= 8


def test_what_is_decoded_at_a_fraction_of_its_size_keeps_its_place() -> None:
    # 1/8 of it are 500.375 x 375.125 pixels, which are decoded as 501 x 376.
    width, height = 4003, 3001
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    rule = InputRule(width=224, height=224, resize="stretch")
    row = decoded(encoded(image, "JPEG", quality=92), rule)[100]
    assert np.abs(row[:111].astype(int) - RED).max() <= 12
    assert np.abs(row[113:].astype(int) - GREEN).max() <= 12
    picture = Image.open(io.BytesIO(encoded(image, "JPEG")))
    assert _draft(picture, _plan(picture.size, rule, is_sideways=False)) == (500.375, 375.125)
    assert _loaded(picture).size == (501, 376)


def test_photo_with_a_second_picture_is_a_jpeg() -> None:
    second = Image.new("RGB", (20, 20), BLUE)
    data = encoded(Image.new("RGB", (60, 40), RED), "MPO", save_all=True, append_images=[second])
    assert np.abs(decoded(data).astype(int) - RED).max() <= 2


def test_no_bytes() -> None:
    with pytest.raises(ImageEmpty):
        decoded(b"")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (encoded(photo(), "TIFF"), "TIFF"),
        (encoded(photo(), "PPM"), "is not JPEG"),
        (b"%PDF-1.7\n%...", "PDF"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "HTML"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (b"hello, this is not an image", "text"),
        (b"data:image/png;base64,iVBORw0KGgo=", "data URL"),
        (b"/9j/4AAQSkZJRgABAQ", "base64"),
        (b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00mif1", "HEIC"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "is not JPEG"),
        (b"\x00" * 100, "is not JPEG"),
    ],
)
def test_other_formats_are_named(data: bytes, named: str) -> None:
    with pytest.raises(ImageFormatUnsupported, match=named) as caught:
        decoded(data)
    assert "JPEG" in str(caught.value)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_is_undecodable(name: str, share: float) -> None:
    data = SAMPLES[name]
    with pytest.raises(ImageUndecodable):
        decoded(data[: int(len(data) * share)])


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )  # fmt: skip


def test_huge_png_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\x00"))
    with pytest.raises(ImageTooLarge, match="50000 x 50000"):
        decoded(data, max_pixels=100_000_000)


def test_huge_webp_gif_and_bmp_are_refused_by_their_headers() -> None:
    webp = bytearray(encoded(Image.new("RGBA", (20, 20)), "WEBP", exif=b"Exif\x00\x00"))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = struct.pack("<I", 16_382)[:3] * 2
    gif = bytearray(SAMPLES["GIF"])
    gif[6:10] = struct.pack("<HH", 65_000, 65_000)
    bmp = bytearray(SAMPLES["BMP"])
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    for data in (webp, gif, bmp):
        with pytest.raises(ImageTooLarge):
            decoded(bytes(data), max_pixels=100_000_000)


def test_limit_of_pixels_is_inclusive() -> None:
    data = encoded(Image.new("RGB", (100, 10)))
    assert decoded(data, max_pixels=1000).shape == (8, 8, 3)
    with pytest.raises(ImageTooLarge, match="at most 999"):
        decoded(data, max_pixels=999)


def test_an_image_that_is_mostly_rows_is_refused() -> None:
    # Each takes as much as eight pixels, in each image that Pillow makes of it.
    row = bytes(2)
    for height, is_refused in ((MAX_ROWS, False), (MAX_ROWS + 1, True)):
        header = struct.pack(">IIBBBBB", 1, height, 8, 0, 0, 0, 0)
        body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * height))
        refused = pytest.raises(ImageTooLarge, match="1000001 pixels high")
        with refused if is_refused else nullcontext():
            decoded(b"\x89PNG\r\n\x1a\n" + body)


def test_image_above_the_limit_of_pillow_is_accepted_if_ours_is_higher() -> None:
    data = encoded(Image.new("1", (20_000, 10_000)))
    assert decoded(data, max_pixels=200_000_000).shape == (8, 8, 3)


def test_messages_name_no_objects_of_this_process() -> None:
    with pytest.raises(InvalidImage) as caught:
        decoded(SAMPLES["PNG"][:40])
    assert "0x" not in str(caught.value)


def decoded_or_refused(data: bytes) -> None:
    try:
        assert decoded(data, CROP).shape == (32, 32, 3)
    except InvalidImage as error:
        assert str(error)  # noqa: PT017 - any of ours is right, and it must say something


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.randoms(use_true_random=False), st.integers(1, 20))
def test_mutated_images_raise_only_our_errors(name: str, rng: random.Random, count: int) -> None:
    data = bytearray(SAMPLES[name])
    # Half of the damage goes where the structure is.
    reach = rng.choice([64, len(data)])
    for _ in range(count):
        data[rng.randrange(min(reach, len(data)))] = rng.randrange(256)
    decoded_or_refused(bytes(data))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.floats(0, 1))
def test_truncated_images_raise_only_our_errors(name: str, share: float) -> None:
    decoded_or_refused(SAMPLES[name][: int(len(SAMPLES[name]) * share)])


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF"]),
    st.binary(max_size=200),
)
def test_anything_raises_only_our_errors(prefix: bytes, rest: bytes) -> None:
    decoded_or_refused(prefix + rest)


def test_threads_do_not_disturb_each_other() -> None:
    names = sorted(SAMPLES) * 10
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda name: decoded(SAMPLES[name]), names))
    for name, image in zip(names, together, strict=True):
        assert (image == decoded(SAMPLES[name])).all()


def gif_of(screen: int, frame: int) -> bytes:
    """Return the beginning of a GIF with an extension before its first frame."""
    disposal = b"!\xf9\x04\x08\x00\x00\x00\x00"
    descriptor = b"," + struct.pack("<HHHHB", 0, 0, frame, frame, 0)
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", screen, screen, 0x80, 0, 0)
        + bytes(6)
        + disposal
        + descriptor
    )


@pytest.mark.parametrize(("screen", "frame"), [(60_000, 1), (1, 60_000)])
def test_huge_gif_is_refused_before_pillow_opens_it(
    screen: int, frame: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its reader of GIF takes a byte per pixel of a frame that is to be disposed of.
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(ImageTooLarge):
        decode(gif_of(screen, frame), InputRule(width=8, height=8), max_pixels=1_000_000)
