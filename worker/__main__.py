"""Run one worker: `python -m worker`."""

if __name__ == "__main__":
    from supervision.early_end import end_when_told

    end_when_told()

import os
import sys

from pydantic import ValidationError

from supervision.lifeline import Lifeline
from supervision.process_name import process_name
from supervision.supervisor import REFUSED
from supervision.taking_turns import take_turns
from telemetry import logs, tracing
from telemetry.metrics import CannotServeMetrics, served
from telemetry.refusal import explained
from telemetry.setting_names import warn_of_unread
from telemetry.tracing import CannotTrace
from worker.model_spec import ModelChanged, ModelError
from worker.processes import process_count, serve_in_processes
from worker.settings import WorkerSettings


def main() -> int:
    """Serve one model until SIGTERM; return the exit code."""
    try:
        settings = WorkerSettings()
    except ValidationError as error:
        return _refuse(explained(error))
    name = process_name()
    logs.configure("worker", level=settings.log_level, log_format=settings.log_format, worker=name)
    lifeline = Lifeline.inherited()
    if lifeline is None:
        warn_of_unread(WorkerSettings)
    else:
        # It may hold a lock that the processes of the next parent wait for.
        lifeline.watch(lambda: os._exit(1))
    try:
        if lifeline is None and process_count(settings) > 1:
            return serve_in_processes(settings, [sys.executable, "-m", "worker"])
        # Before libraries start threads, as those inherit it.
        take_turns()
        # What this imports takes half a second and 50 MB, which the parent of others can do
        # without.
        from worker.serving import serve  # noqa: PLC0415

        # Around the preparation, too: a worker without figures is taken for one that is away.
        with tracing.recorded("worker", instance=name), served(settings.metrics_address):
            return serve(settings, name, lifeline)
    except ModelChanged as error:
        _refuse(str(error))
        return 1  # the next start reads the description that belongs to it
    except (ModelError, CannotServeMetrics, CannotTrace) as error:
        return _refuse(str(error))


def _refuse(text: str) -> int:
    print(f"worker: {text}", file=sys.stderr)  # noqa: T201 - one line for who started it
    return REFUSED


if __name__ == "__main__":
    code = main()
    # A thread may still be inside the model, which cannot be interrupted, and
    # tearing TensorFlow down under it would crash.
    sys.stderr.flush()
    os._exit(code)
