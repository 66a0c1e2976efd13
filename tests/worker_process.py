"""A real worker process with a model that takes no time to load.

    python -m tests.worker_process REDIS_URL JOURNAL [--inference-ms N] [--batch N]
        [--processes N] [--fail-to-load]

The model `colours` scores an image by its mean red, green and blue, so that each
caller can check that an answer is the answer to its own image. It writes the
colours of each batch to JOURNAL before it answers, so that a test can tell what
was computed, how often, and in what company. Two colours are special: `CRASH`
kills the process, `RAISE` makes the model raise.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from despacho.job.v1.job_pb2 import ModelCard
from supervision.lifeline import VARIABLE, Lifeline
from supervision.process_name import process_name
from telemetry import logs, metrics, tracing
from worker.app import Served, Worker
from worker.decode import decode
from worker.engine import Engine, Float32Array, UInt8Array
from worker.model_spec import InputRule
from worker.processes import serve_in_processes
from worker.serving import run_until_signal
from worker.settings import WorkerSettings

MODEL: Final = "colours"
LABELS: Final = ("red", "green", "blue")
SIDE: Final = 8
CRASH: Final = (250, 0, 0)
RAISE: Final = (0, 250, 0)


class ColourEngine:
    """Scores are the channel means, so they name the colour of the image."""

    def __init__(self, journal: Path, inference_s: float) -> None:
        self._journal = journal
        self._inference_s = inference_s
        self._never = threading.Event()

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Need none."""

    def predict(self, images: UInt8Array) -> Float32Array:
        """Return red, green and blue of each image as shares of their sum."""
        colours = [tuple(int(value) for value in image[0, 0]) for image in images]
        with self._journal.open("a") as journal:
            journal.write(
                " ".join("#{:02x}{:02x}{:02x}".format(*colour) for colour in colours) + "\n"
            )
        if CRASH in colours:
            os.kill(os.getpid(), signal.SIGKILL)
        if RAISE in colours:
            raise ValueError("this colour cannot be scored")
        self._never.wait(self._inference_s)
        scores: Float32Array = (images.mean(axis=(1, 2)) / 255).astype(np.float32)
        return scores


def arguments_parser() -> argparse.ArgumentParser:
    """Return what the command line may say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("redis_url")
    parser.add_argument("journal", type=Path)
    parser.add_argument("--inference-ms", type=float, default=0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--fail-to-load", action="store_true")
    return parser


def colours_served(arguments: argparse.Namespace) -> Served:
    """Return the model `colours` as the command line wants it."""

    def load() -> Engine:
        if arguments.fail_to_load:
            raise RuntimeError("the weights are not there")
        return ColourEngine(arguments.journal, arguments.inference_ms / 1000)

    card = ModelCard(
        name=MODEL,
        version="1",
        engine="test",
        labels=LABELS,
        input_width=SIDE,
        input_height=SIDE,
        max_batch_size=arguments.batch,
    )
    rule = InputRule(width=SIDE, height=SIDE, resize="stretch")
    return Served(card, partial(decode, rule=rule, max_pixels=10_000), load)


def serve(redis_url: str, served: Served) -> int:
    """Serve until SIGTERM; return the exit code."""
    settings, name = WorkerSettings(redis_url=redis_url), process_name()
    log_format = "console" if settings.log_format == "auto" else settings.log_format
    logs.configure("worker", level=settings.log_level, log_format=log_format, worker=name)
    with tracing.recorded("worker", instance=name), metrics.served(settings.metrics_address):
        return run_until_signal(Worker(settings, served, name=name), Lifeline.inherited())


def main() -> int:
    """Serve the model `colours`."""
    arguments = arguments_parser().parse_args()
    if arguments.processes > 1 and VARIABLE not in os.environ:
        logs.configure("worker", level="INFO", log_format="console")
        settings = WorkerSettings(redis_url=arguments.redis_url, processes=arguments.processes)
        return serve_in_processes(
            settings, [sys.executable, "-m", "tests.worker_process", *sys.argv[1:]]
        )
    return serve(arguments.redis_url, colours_served(arguments))


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
