"""The limit of any server of a model: decode and infer in one process, with nothing around it.

    python -m tests.bench.in_process ENGINE THREADS PHOTO

Loads the bundled model, says `ready`, and then answers each line `SECONDS BATCH` on standard
input with one line of JSON: images, seconds, latencies in milliseconds, and the best class. An
image is decoded, by the worker's own decoder, each time.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from telemetry import logs
from worker.batch_cost import BatchCost
from worker.engine import Engine
from worker.model_directory import decoder, load_engine, open_model
from worker.settings import WorkerSettings


def measured(
    engine: Engine, photo: bytes, decode: Any, *, seconds: float, batch: int
) -> dict[str, object]:
    """Decode and infer for a while, `batch` images at a time."""
    latencies: list[float] = []
    best = -1
    began = time.perf_counter()
    while (start := time.perf_counter()) - began < seconds:
        scores = engine.predict(np.stack([decode(photo) for _ in range(batch)]))
        best = int(scores[-1].argmax())
        latencies += [(time.perf_counter() - start) * 1000] * batch
    return {
        "images": len(latencies),
        "seconds": time.perf_counter() - began,
        "latencies_ms": latencies,
        "best": best,
    }


def loaded(name: str, threads: int, *, alone_threads: int = 0) -> tuple[Any, Engine]:
    """Return the worker's decoder, and an engine with the bundled model, warm as a worker's is.

    Args:
        name: of the engine.
        threads: of one inference.
        alone_threads: of the inference of one image while nobody else of this machine computes.
    """
    settings = WorkerSettings.model_validate({"engine": name})
    cache_dir = settings.cache_dir
    spec = open_model(settings.model, cache_dir, engine=settings.engine or None)
    decode = decoder(spec, max_pixels=settings.max_image_pixels)
    engine = load_engine(spec, threads=threads, alone_threads=alone_threads, cache_dir=cache_dir)
    # Some engines have a network for each size of batch, for those sizes that were tried.
    BatchCost(spec.default_batch_size).measure(engine.warm_up)
    return decode, engine


def main() -> None:
    """Serve standard input."""
    name, threads, path = sys.argv[1:]
    # To standard error: what is on standard output is for whoever asks.
    logs.configure("in process", level="WARNING")
    decode, engine = loaded(name, int(threads))
    photo = Path(path).read_bytes()
    say("ready")
    for line in sys.stdin:
        seconds, batch = line.split()
        say(json.dumps(measured(engine, photo, decode, seconds=float(seconds), batch=int(batch))))


def say(line: str) -> None:
    """Answer."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
