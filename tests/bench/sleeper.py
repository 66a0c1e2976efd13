"""A worker of the no-op model that sleeps for each inference, in place of a device that is busy.

    python -m tests.bench.sleeper SLEEP_MS

Model directory, Redis and all else come from the environment, as for `python -m worker`.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence

from telemetry import logs, metrics
from worker.app import Served, Worker
from worker.engine import Engine, Float32Array, UInt8Array
from worker.model_directory import decoder, load_engine, open_model
from worker.settings import WorkerSettings


class Sleeper:
    """Takes its time, and then asks another engine.

    Args:
        engine: knows the answers.
        sleep_s: for each batch.
    """

    def __init__(self, engine: Engine, sleep_s: float) -> None:
        self._engine = engine
        self._sleep_s = sleep_s
        self._never = threading.Event()

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Need none."""

    def predict(self, images: UInt8Array) -> Float32Array:
        """Sleep and answer."""
        self._never.wait(self._sleep_s)
        return self._engine.predict(images)


def main() -> int:
    """Serve until SIGTERM; return the exit code."""
    sleep_s = float(sys.argv[1]) / 1000
    settings = WorkerSettings()
    logs.configure("worker", level=settings.log_level, log_format=settings.log_format)
    spec = open_model(settings.model, settings.cache_dir)
    served = Served(
        card=spec.card(settings.max_batch_size),
        decode=decoder(spec, max_pixels=settings.max_image_pixels),
        load=lambda: Sleeper(load_engine(spec, threads=1), sleep_s),
    )
    worker = Worker(settings, served)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    with metrics.served(settings.metrics_address):
        return worker.run()


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
