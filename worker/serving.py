"""Serves the model of the settings in this process."""

import os
import signal
from collections.abc import Callable
from functools import partial

from supervision.lifeline import Lifeline
from supervision.stop_requests import StopRequests
from worker.app import Served, Worker
from worker.loading_shown import loading_shown
from worker.model_directory import decoder, load_engine, open_model
from worker.ready_file import ReadyFile
from worker.settings import WorkerSettings
from worker.tune.auto import chosen


def serve(settings: WorkerSettings, name: str, lifeline: Lifeline | None) -> int:
    """Serve until SIGTERM, or until the parent is gone; return the exit code.

    Args:
        settings: the knobs.
        name: of this worker.
        lifeline: to the parent, if it has one.

    Raises:
        ModelError: the model cannot be served.
    """
    model = open_model(
        settings.model,
        settings.cache_dir,
        engine=settings.engine or None,
        precision=settings.precision or None,
    )
    with loading_shown(settings, model, name):
        spec = chosen(
            model,
            threads=settings.inference_threads,
            max_batch_size=settings.max_batch_size,
            cache_dir=settings.cache_dir,
        )
    served = Served(
        card=spec.card(settings.max_batch_size),
        decode=decoder(spec, max_pixels=settings.max_image_pixels),
        load=partial(
            load_engine,
            spec,
            threads=settings.inference_threads,
            alone_threads=settings.alone_threads,
            cache_dir=settings.cache_dir,
        ),
    )
    worker = Worker(settings, served, name=name)
    if lifeline is not None:
        # The parent keeps the file of all its processes.
        return run_until_signal(worker, lifeline)
    file = ReadyFile(settings.ready_file)
    with file.gone_before_and_after():
        return run_until_signal(worker, None, show_ready=file.make)


def run_until_signal(
    worker: Worker, lifeline: Lifeline | None, *, show_ready: Callable[[], None] = lambda: None
) -> int:
    """Run a worker; SIGTERM, SIGINT and the end of its parent stop it. Return the exit code.

    A second signal ends the process as it is; if it has a parent, that one sees to it.

    Args:
        worker: that has not run yet.
        lifeline: to the parent, if it has one.
        show_ready: called once it takes jobs.
    """
    requests = StopRequests()

    def stop() -> None:
        if requests.note() and lifeline is None:
            os._exit(1)
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())
    if lifeline is None:
        return worker.run(on_ready=show_ready)
    lifeline.watch(worker.stop)

    def be_ready() -> None:
        show_ready()
        lifeline.say_ready()

    return worker.run(on_ready=be_ready)
