"""How many processes one worker has, what each of them gets, and how they run together."""

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from supervision.supervisor import Supervisor
from telemetry import metrics
from worker import machine
from worker.ready_file import ReadyFile
from worker.settings import WorkerSettings

MEMORY_SHARE: Final = 0.8
"""Of what is available when the first process serves; the others may take no more."""

ALONE_THREADS_MOST: Final = 8
"""Unless more are wanted: each process has so many, and what more are good for was not measured."""

STOP_MARGIN_S: Final = 20.0
"""How much longer than `WORKER_STOP_GRACE_S` a process may take to stop, as threads have to end."""


def process_count(settings: WorkerSettings) -> int:
    """Return how many processes are wanted: as many as cores, unless a number is set."""
    return machine.usable_cores() if settings.processes == "auto" else settings.processes


def serve_in_processes(settings: WorkerSettings, command: Sequence[str]) -> int:
    """Serve in several processes until SIGTERM; return the exit code.

    Args:
        settings: of all of them.
        command: starts one.

    Raises:
        CannotServeMetrics: their address is in use, or not ours.
    """
    count = process_count(settings)
    environment = environment_of_children(
        os.environ, settings, cores=machine.usable_cores(), count=count
    )
    # Only one process can have the address: theirs count for the sums.
    environment["WORKER_METRICS_ADDRESS"] = ""
    file = ReadyFile(settings.ready_file)
    with (
        metrics.served_for(environment, settings.metrics_address),
        file.gone_before_and_after(),
    ):
        supervisor = Supervisor(
            command,
            count,
            environment,
            start_timeout_s=settings.start_timeout_s,
            stop_timeout_s=settings.stop_grace_s + STOP_MARGIN_S,
            how_many_fit=how_many_fit if settings.processes == "auto" else None,
            on_serving=file.make,
            on_none_serving=file.remove,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        return supervisor.run()


def environment_of_children(
    environment: Mapping[str, str], settings: WorkerSettings, *, cores: int, count: int
) -> dict[str, str]:
    """Return what each process gets: the same settings, and its share of the cores.

    Args:
        environment: of the parent.
        settings: as the parent has read them.
        cores: that all may use together.
        count: how many processes there are.
    """
    share = max(1, cores // count)
    alone = settings.alone_threads or settings.inference_threads or min(cores, ALONE_THREADS_MOST)
    return {
        **environment,
        "WORKER_PROCESSES": "1",
        "WORKER_INFERENCE_THREADS": str(settings.inference_threads or share),
        "WORKER_ALONE_THREADS": str(alone),
        "WORKER_DECODE_THREADS": str(settings.decode_threads or share),
    }


def how_many_fit(process_id: int) -> int:
    """Return for how many processes like this one there is memory; plenty if nobody knows."""
    needed, available = machine.own_bytes(process_id), machine.available_bytes()
    if not needed or available is None:
        return machine.usable_cores()
    return int(available * MEMORY_SHARE / needed)
