"""A large photo: what it saves not to decode it in full."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt
import skimage
from PIL import Image

from tests.bench.bench import Bench, calm, compared, rate_ratio
from tests.bench.figures import significant
from tests.bench.h2load import Load
from tests.bench.loads import to_run
from tests.bench.results import Bound, Run, Table
from tests.bench.scenarios import scenario
from tests.bench.usage import Meter
from worker.bundled.spec import INPUT, NAME
from worker.decode import REDUCING_GAP
from worker.engine import UInt8Array
from worker.model_directory import decoder, load_engine, open_model
from worker.settings import WorkerSettings

SIZE: Final = (4000, 3000)
"""12 megapixels."""

SAMPLES: Final = ("coffee", "camera", "chelsea", "motorcycle_left", "rocket", "astronaut")
NOISE: Final = 4.0
"""Grey levels. Without any, an enlarged image would have no detail, and be decoded too fast."""

QUALITY: Final = 90
SMOOTH_ROUNDS: Final = 2
Decode = Callable[[bytes], UInt8Array]


@dataclass(slots=True)
class Decoding:
    """One thread that decodes one photo again and again."""

    side: str
    decode: Decode
    photo: bytes

    def warm_up(self) -> None:
        """Decode it once."""
        self.decode(self.photo)

    def run(self, number: int, seconds: float) -> Run:
        """Decode for so long."""
        latencies = []
        with Meter({}) as meter:
            began = time.perf_counter()
            while (start := time.perf_counter()) - began < seconds:
                self.decode(self.photo)
                latencies.append((time.perf_counter() - start) * 1000)
            took_s = time.perf_counter() - began
        load = Load(len(latencies), took_s, sorted(latencies), data_bytes=None)
        label = f"12 MP JPEG, {len(self.photo) / 1e6:.1f} MB"
        return to_run(load, meter, label=label, side=self.side, number=number, concurrency=1)


def large(sample: str, noise: float = NOISE) -> bytes:
    """Return a sample photo of scikit-image as a JPEG of 12 megapixels."""
    folder = Path(skimage.__file__).parent / "data"
    (path,) = folder.glob(f"{sample}.*")
    with Image.open(path) as image:
        enlarged = image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, noise, (SIZE[1], SIZE[0], 1))
    pixels = np.clip(np.asarray(enlarged) + grain, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def decode_plainly(data: bytes) -> UInt8Array:
    """Return the model's input as its recipe says it: decode, cut, scale."""
    return decoded_in_full(data, None)


def decode_and_average(data: bytes) -> UInt8Array:
    """Return it with the worker's short cut for large images, but for the one of JPEGs."""
    return decoded_in_full(data, REDUCING_GAP)


def decoded_in_full(data: bytes, reducing_gap: float | None) -> UInt8Array:
    """Return the model's input of a photo that is decoded at its full size."""
    with Image.open(io.BytesIO(data)) as image:
        # Not converted here, as in many a program: that would copy all of the pixels.
        image.load()
        side = min(image.size) * INPUT.crop_fraction
        left, top = ((length - side) / 2 for length in image.size)
        box = (left, top, left + side, top + side)
        size = (INPUT.width, INPUT.height)
        small = image.resize(size, Image.Resampling.BICUBIC, box, reducing_gap)
        return np.asarray(small.convert("RGB"))


@scenario("photo", "A JPEG of 12 megapixels: decoding it scaled, and in full", needs_h2load=False)
async def photo(bench: Bench) -> None:
    settings = WorkerSettings()
    spec = open_model(NAME, settings.cache_dir)
    decode = decoder(spec, max_pixels=settings.max_image_pixels)
    photos = {sample: large(sample) for sample in SAMPLES}
    bench.settings["samples"] = (
        f"of scikit-image, enlarged to 4000 x 3000 with noise of {NOISE:g} grey levels, "
        f"quality {QUALITY}; one thread"
    )
    first = photos[SAMPLES[0]]
    ways = {
        "worker": decode,
        "in full": decode_plainly,
        "in full, averaged": decode_and_average,
    }
    rounds = bench.interleave([Decoding(name, way, first) for name, way in ways.items()])
    what = "12-megapixel JPEG, decoding, of decoding in full"
    bench.must(what, Bound.AT_LEAST, 4, " x", compared(rounds, rate_ratio))
    what = f"{what} with the worker's averaging"
    bench.must(what, Bound.AT_LEAST, 4, " x", compared(rounds, rate_ratio, second=2))
    smooth = large(SAMPLES[0], noise=0)
    rounds = bench.interleave(
        [Decoding(name, way, smooth) for name, way in ways.items()], rounds=SMOOTH_ROUNDS
    )
    plain, averaged = (
        significant(median(each.value for each in compared(rounds, rate_ratio, second=side)))
        for side in (1, 2)
    )
    bench.notes.append(
        f"Without noise they are {plain} and {averaged} x: what cannot be left out is undoing the"
        " Huffman code, which grows with the size of the file."
    )
    engine = load_engine(spec, threads=0)
    names = np.array(spec.labels)
    rows, agreed = [], 0
    for sample, data in photos.items():
        scaled = engine.predict(decode(data)[None])[0]
        full = engine.predict(decode_plainly(data)[None])[0]
        agreed += int(scaled.argmax() == full.argmax())
        rows.append([sample, best(names, scaled), best(names, full)])
    bench.tables.append(Table(title="Best label", heads=["sample", "scaled", "in full"], rows=rows))
    what = "12-megapixel JPEG, samples with the same top-1 as decoded in full"
    bench.must(what, Bound.AT_LEAST, 1, "", [calm(agreed / len(photos))])


def best(names: npt.NDArray[np.str_], scores: npt.NDArray[np.float32]) -> str:
    """Return the best label with its score."""
    index = int(scores.argmax())
    return f"{names[index]} {scores[index]:.3f}"
