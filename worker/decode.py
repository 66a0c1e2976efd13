"""From the caller's bytes to the model's input.

The size is read from the header and checked before anything is decoded. What
can wait until the image is small waits: turning it upright, its transparency,
its colour space. All resize rules are symmetric about the centre, so turning
it upright last changes nothing.
"""

import io
import re
import warnings
from collections.abc import Mapping
from math import ceil
from typing import Final, NamedTuple

import numpy as np

# Imported so that they are registered before the first image comes, from any thread.
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from dispatch.errors import (
    ImageEmpty,
    ImageFormatUnsupported,
    ImageTooLarge,
    ImageUndecodable,
    InvalidImage,
)
from worker.bare_image import UPRIGHT, bare, orientation_of
from worker.engine import UInt8Array
from worker.image_format import (
    ACCEPTED,
    ACCEPTED_NAMES,
    gif_size,
    guess,
    is_accepted,
    png_size,
    webp_size,
)
from worker.model_spec import InputRule

__all__ = ["BACKGROUND", "decode"]

PLUGINS: Final = (
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

# Pillow's own limit warns or raises by a number of its own, for the whole
# process; ours is checked right after the header.
Image.MAX_IMAGE_PIXELS = None

# Pillow warns of damaged metadata, which is no reason to refuse an image and
# nothing that whoever runs the worker can act on.
warnings.filterwarnings("ignore", module="PIL")

BACKGROUND: Final = (255, 255, 255)
"""What is seen through a transparent image: white, as most viewers show it."""

DRAFT_GAP: Final = 1.25
"""How many times the input's size a JPEG is decoded at, at least, when it need not be decoded
in full. Its decoder scales by 1/2, 1/4 or 1/8 for less than the price of decoding, and averages
while it does: what is left to interpolate needs little more than the input's size."""

REDUCING_GAP: Final = 3.0
"""How many times the input's size an image is averaged down to, at least, before it is
interpolated. From 3 on no difference can be seen."""

# Pillow keeps 8 bytes for each row of an image, and has three of them while it scales one with a
# palette: where a row is one pixel, most of what it takes is that. Only PNG and BMP can be so high.
MAX_ROWS: Final = 1_000_000
"""Largest height of an image, pixels."""

# Its decoder is written in Python, and a run that ends a line is filled byte by byte.
MAX_RUN_LENGTH_PIXELS: Final = 4 * 1024 * 1024
"""Largest BMP that is encoded in runs, width x height."""

ORIENTATIONS: Final[Mapping[object, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by the value of its EXIF orientation; 1 is upright."""

SIDEWAYS: Final = (5, 6, 7, 8)
"""Orientations of images that are stored with width and height exchanged."""

FILTERS: Final[Mapping[str, Image.Resampling]] = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class _Plan(NamedTuple):
    """Which part of the stored image becomes how many pixels."""

    share: tuple[float, float]
    """Width and height of the centred part that is kept, as fractions of the stored image."""

    size: tuple[int, int]
    """Width and height that it is scaled to, pixels."""


def decode(data: bytes, rule: InputRule, *, max_pixels: int) -> UInt8Array:
    """Return the first frame of an image, upright, in the model's size.

    May be called from any number of threads at once.

    Args:
        data: JPEG, PNG, WebP, GIF or BMP.
        rule: the model's input.
        max_pixels: most pixels, width x height, that an image may have.

    Returns:
        RGB, shape (rule.height, rule.width, 3). Transparent parts show `BACKGROUND`.

    Raises:
        ImageEmpty: there are no bytes.
        ImageFormatUnsupported: they are something else.
        ImageTooLarge: the image has more than `max_pixels`, or more than memory can hold, or
            takes far longer to decode than one of its size should.
        ImageUndecodable: it is damaged or cut short.
    """
    if not data:
        raise ImageEmpty("the image has no bytes")
    if not is_accepted(data):
        what = guess(data)
        raise ImageFormatUnsupported(
            f"the image is not {ACCEPTED_NAMES}" + (f"; it looks like {what}" if what else "")
        )
    essence = bare(data, max_pixels=max_pixels)
    if size := png_size(data) or webp_size(data) or gif_size(essence.data):
        # Before Pillow opens it: its readers of WebP and GIF may take memory for all
        # pixels at once, and that of PNG wants to have seen the first of them.
        _check_size(size, max_pixels)
    stream = io.BytesIO(essence.data)
    try:
        with Image.open(stream, formats=ACCEPTED) as image:
            _check_size(image.size, max_pixels)
            _check_runs(image, stream)
            orientation = _orientation(image) if image.format == "WEBP" else essence.orientation
            return np.asarray(_to_input(image, rule, orientation))
    except InvalidImage:
        raise
    except MemoryError as error:
        raise ImageTooLarge("the image needs more memory than the worker has") from error
    except Exception as error:
        # Pillow's readers raise OSError, SyntaxError, struct.error, ValueError,
        # IndexError and more on damaged files. None of it is the worker's fault.
        raise ImageUndecodable(_reason(error)) from error


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Refuse an image whose header promises too many pixels."""
    width, height = size
    pixels = width * height
    if pixels > max_pixels:
        raise ImageTooLarge(
            f"the image has {width} x {height} = {pixels} pixels; at most {max_pixels} are accepted"
        )
    if height > MAX_ROWS:
        raise ImageTooLarge(f"the image is {height} pixels high; at most {MAX_ROWS} are accepted")


def _check_runs(image: Image.Image, stream: io.BytesIO) -> None:
    """Refuse a large BMP that is encoded in runs, and let a small one have no useless ones."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    if not any(tile.codec_name == "bmp_rle" for tile in tiles):
        return
    _check_size(image.size, MAX_RUN_LENGTH_PIXELS)
    # Two bytes for each pixel and for each end of a line: nothing that shows needs more.
    width, height = image.size
    stream.truncate(tiles[0].offset + 2 * (width + 2) * height + 2)


def _to_input(image: Image.Image, rule: InputRule, orientation: int) -> Image.Image:
    plan = _plan(image.size, rule, is_sideways=orientation in SIDEWAYS)
    shown = _draft(image, plan)
    small = _scaled(_loaded(image), shown, plan, FILTERS[rule.filter])
    if orientation in ORIENTATIONS:
        small = small.transpose(ORIENTATIONS[orientation])
    return _padded(_opaque(small), rule)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image that Pillow has opened without looking at it."""
    exif = image.info.get("exif")
    return orientation_of(exif) if isinstance(exif, bytes) else UPRIGHT


def _plan(stored: tuple[int, int], rule: InputRule, *, is_sideways: bool) -> _Plan:
    """Apply the resize rule, in the orientation in which the image is stored."""
    width, height = stored
    into = (rule.height, rule.width) if is_sideways else (rule.width, rule.height)
    match rule.resize:
        case "stretch":
            return _Plan((1.0, 1.0), into)
        case "fit":
            scale = min(into[0] / width, into[1] / height)
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            return _Plan((1.0, 1.0), size)
        case "crop":
            ratio = min(width / into[0], height / into[1]) * rule.crop_fraction
            share = (min(1.0, into[0] * ratio / width), min(1.0, into[1] * ratio / height))
            return _Plan(share, into)


def _draft(image: Image.Image, plan: _Plan) -> tuple[float, float]:
    """Let a large JPEG be decoded at a fraction of its size.

    Returns:
        Width and height that the whole picture has when it is decoded. The last column and row
        may be pixels of which only a part belongs to the picture: without that fraction it would
        be scaled by a little too much, and lie beside its place.
    """
    # The size of the whole image at which the part that is kept has the input's size.
    width, height = (size / share for size, share in zip(plan.size, plan.share, strict=True))
    drafted = image.draft(None, (ceil(width * DRAFT_GAP), ceil(height * DRAFT_GAP)))
    return image.size if drafted is None else drafted[1][2:]


def _loaded(image: Image.Image) -> Image.Image:
    """Decode, to a mode that can be scaled."""
    image.load()
    match image.mode:
        case "L" | "RGB" | "CMYK" if not image.has_transparency_data:
            return image
        case "LA" | "RGBA":
            return image
        case mode if mode == "I" or mode.startswith("I;16"):
            # 16 bits of grey. Pillow would clip them at 255, and show the one that is transparent.
            values = np.asarray(image)
            grey = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
            if "transparency" in image.info:
                is_shown = values != image.info["transparency"]
                grey.putalpha(Image.fromarray(is_shown * np.uint8(255)))
            return grey
    # Palettes, one bit, and a colour that stands for transparency.
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _scaled(
    image: Image.Image, shown: tuple[float, float], plan: _Plan, resampling: Image.Resampling
) -> Image.Image:
    """Cut and scale."""
    width, height = shown
    left, top = ((side - side * share) / 2 for side, share in zip(shown, plan.share, strict=True))
    box = (left, top, width - left, height - top)
    return image.resize(plan.size, resampling, box, REDUCING_GAP)


def _opaque(image: Image.Image) -> Image.Image:
    """Return the image in RGB, transparent parts on the background."""
    if image.mode not in {"LA", "RGBA"}:
        return image.convert("RGB")
    canvas = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")


def _padded(image: Image.Image, rule: InputRule) -> Image.Image:
    """Return the image in the middle of one of the input's size."""
    if image.size == (rule.width, rule.height):
        return image
    canvas = Image.new("RGB", (rule.width, rule.height), rule.padding)
    canvas.paste(image, ((rule.width - image.width) // 2, (rule.height - image.height) // 2))
    return canvas


def _reason(error: Exception) -> str:
    """Return what is wrong, for the caller; Pillow's own words name objects of this process."""
    if re.search("truncated|unexpected end|not enough image data", str(error), re.IGNORECASE):
        return "the image is cut short"
    return "the image is damaged: it begins like an image and cannot be decoded"
