"""A worker with the real decoder and its real limits, a fast model, and maybe something broken.

python -m tests.fuzz.worker REDIS_URL JOURNAL [--break NAME]
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from tests.worker_process import arguments_parser, colours_served, serve
from worker.decode import decode
from worker.engine import UInt8Array
from worker.model_spec import InputRule
from worker.settings import WorkerSettings

RULE: Final = InputRule(width=224, height=224, crop_fraction=0.875)
MAX_PIXELS: Final[int] = WorkerSettings.model_fields["max_image_pixels"].default
LEAK_BYTES: Final = 16 * 1024 * 1024
LEAK_S: Final = 0.1
"""Not more often, so that the machine survives it."""

_leaked_s = [0.0]

Decode = Callable[[bytes], UInt8Array]


def sound(image: bytes) -> UInt8Array:
    """Decode as the worker does."""
    return decode(image, RULE, max_pixels=MAX_PIXELS)


def dying(image: bytes) -> UInt8Array:
    """End the process for a BMP."""
    if image.startswith(b"BM"):
        os._exit(3)
    return sound(image)


def hanging(image: bytes) -> UInt8Array:
    """Never come back from a GIF."""
    if image.startswith(b"GIF"):
        threading.Event().wait()
    return sound(image)


def leaking(kept: list[bytearray], image: bytes) -> UInt8Array:
    """Keep something of many an image."""
    if time.monotonic() - _leaked_s[-1] > LEAK_S:
        _leaked_s.append(time.monotonic())
        kept.append(bytearray(b"x" * LEAK_BYTES))
    return sound(image)


def raising(image: bytes) -> UInt8Array:
    """Raise what nobody expects, for a WebP."""
    if image.startswith(b"RIFF"):
        raise LookupError("not an error of ours")
    return sound(image)


BREAKS: Final[dict[str, Decode]] = {
    "": sound,
    "dies": dying,
    "hangs": hanging,
    "leaks": partial(leaking, []),
    "raises": raising,
}


def main() -> int:
    """Serve until SIGTERM."""
    parser = arguments_parser()
    parser.add_argument("--break", default="", choices=BREAKS, dest="broken")
    arguments = parser.parse_args()
    served = colours_served(arguments)
    return serve(arguments.redis_url, replace(served, decode=BREAKS[arguments.broken]))


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
