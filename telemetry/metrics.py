"""The page where Prometheus reads the figures of a service, and what several services count.

What there is to read is in `metrics_catalogue.py`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Final, Literal, get_args

import structlog
from prometheus_client import REGISTRY, CollectorRegistry

from telemetry import metrics_folder
from telemetry.metrics_catalogue import AVOIDED, INSTRUMENTS, PROCESSES, WASTED
from telemetry.metrics_page import Page
from telemetry.metrics_server import listening
from telemetry.metrics_sums import Sums, written

Stage = Literal["queue", "decode", "inference"]
"""Where work was avoided: while it waited, before its decoding, before its inference."""

Unwanted = Literal["expired", "cancelled"]
"""Why work was avoided: its deadline had passed, or others had retired it."""

Waste = Literal["too_late", "orphaned"]
"""Why an answer was wasted: others had retired its job, or nobody is there to take it."""

FOLDER_VARIABLE: Final = "DESPACHO_METRICS_FOLDER"
"""Environment variable with a folder into which a process writes its figures, for `Sums`."""

log = structlog.get_logger()

REGISTRY.register(Page(INSTRUMENTS))


class CannotServeMetrics(Exception):
    """The address of the metrics is no good."""


def are_wanted(address: str) -> bool:
    """Return whether anybody reads the figures of this process, here or with those of others.

    Args:
        address: as in `served`.
    """
    return bool(address or FOLDER_VARIABLE in os.environ)


def begin_at_zero(model: str, stages: Sequence[Stage], *, infers: bool) -> None:
    """Show the counters of a model before they count.

    A rate misses the first event of a series that appears with it.

    Args:
        model: name of the model.
        stages: where this process avoids work.
        infers: whether it may waste any.
    """
    for stage, unwanted in product(stages, get_args(Unwanted)):
        AVOIDED.begin(model, stage, unwanted)
    for waste in get_args(Waste) if infers else ():
        WASTED.begin(model, waste)


def count_avoided(model: str, stage: Stage, cause: Unwanted) -> None:
    """Count an image that was not inferred."""
    AVOIDED.add(model, stage, cause)


def count_wasted(model: str, cause: Waste) -> None:
    """Count an image that was inferred for nobody."""
    WASTED.add(model, cause)


@contextmanager
def served(address: str, registry: CollectorRegistry = REGISTRY) -> Iterator[None]:
    """Serve the figures of this process over HTTP while inside.

    A process that was started for that writes them for its parent instead.

    Args:
        address: `host:port`; port 0: any free one, which the log names. Empty: do not.
        registry: what is served.

    Raises:
        CannotServeMetrics: the address is in use, or not ours.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    with PROCESSES.reading(lambda: [((), (1,))]):
        if address:
            with _page(address, registry):
                yield
        elif folder:
            with written(Path(folder), INSTRUMENTS):
                yield
        else:
            yield


@contextmanager
def served_for(environment: dict[str, str], address: str) -> Iterator[None]:
    """Serve the sums of processes that are yet to be started, while inside.

    Args:
        environment: what they will get; told here to write their figures. They must serve
            nothing by themselves, as only one process can have the address.
        address: as in `served`.

    Raises:
        CannotServeMetrics: the address is in use, or not ours, or there is no place for figures.
    """
    if not address:
        yield
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(metrics_folder.made())
        except OSError as error:
            raise CannotServeMetrics(
                f"no folder for the figures of several processes: {error}"
            ) from error
        environment[FOLDER_VARIABLE] = str(folder)
        registry = CollectorRegistry()
        registry.register(Page(INSTRUMENTS, Sums(folder, INSTRUMENTS).read))
        stack.enter_context(_page(address, registry))
        yield


@contextmanager
def _page(address: str, registry: CollectorRegistry) -> Iterator[None]:
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        try:
            found = stack.enter_context(listening(host.strip("[]"), int(port), registry))
        except (OSError, OverflowError) as error:
            raise CannotServeMetrics(f"cannot serve metrics at {address}: {error}") from error
        log.info("metrics served", url=f"http://{host}:{found}/metrics")
        yield
