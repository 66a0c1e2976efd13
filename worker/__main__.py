"""Run one worker: `python -m worker`."""

import os
import signal
import sys
from functools import partial

from pydantic import ValidationError

from telemetry import logs
from telemetry.metrics import CannotServeMetrics
from telemetry.refusal import explained
from worker.app import Served, Worker
from worker.model_directory import decoder, load_engine, open_model
from worker.model_spec import ModelError
from worker.settings import WorkerSettings


def main() -> int:
    """Serve one model until SIGTERM; return the exit code."""
    try:
        settings = WorkerSettings()
        logs.configure("worker", level=settings.log_level, log_format=settings.log_format)
        spec = open_model(settings.model, settings.cache_dir.expanduser())
    except ValidationError as error:
        return _refuse(explained(error))
    except ModelError as error:
        return _refuse(str(error))
    served = Served(
        card=spec.card(settings.max_batch_size),
        decode=decoder(spec, max_pixels=settings.max_image_pixels),
        load=partial(load_engine, spec, threads=settings.inference_threads),
    )
    worker = Worker(settings, served)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    try:
        return worker.run()
    except (ModelError, CannotServeMetrics) as error:
        return _refuse(str(error))


def _refuse(text: str) -> int:
    print(f"worker: {text}", file=sys.stderr)  # noqa: T201 - one line for who started it
    return 2


if __name__ == "__main__":
    code = main()
    # A thread may still be inside the model, which cannot be interrupted, and
    # tearing TensorFlow down under it would crash.
    sys.stderr.flush()
    os._exit(code)
