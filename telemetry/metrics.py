"""The counters of all services, and the page where Prometheus reads those of a process.

despacho_work_avoided_total{model, stage, cause}   images that were not inferred, as
                                                   nobody waited for them any more
despacho_work_wasted_total{model, cause}           images that were inferred, and then
                                                   nobody wanted the answer
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Annotated, Final, Literal, get_args

import structlog
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.multiprocess import MultiProcessCollector
from pydantic import Field

MetricsAddress = Annotated[str, Field(pattern=r"^(.+:\d{1,5})?$")]
"""`host:port` of the page, or empty for none."""

Stage = Literal["queue", "decode", "inference"]
"""Where work was avoided: while it waited, before its decoding, before its inference."""

Unwanted = Literal["expired", "cancelled"]
"""Why work was avoided: its deadline had passed, or others had retired it."""

Waste = Literal["too_late", "orphaned"]
"""Why an answer was wasted: others had retired its job, or nobody is there to take it."""

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with a folder into which a process counts, for `served_sums`; read once,
while this module is imported."""

log = structlog.get_logger()

# When a counter began is of no use to rates, and doubles the page.
disable_created_metrics()  # type: ignore[no-untyped-call]

_AVOIDED: Final = Counter(
    "despacho_work_avoided_total",
    "Images that were not inferred, as nobody waited for them any more.",
    ("model", "stage", "cause"),
)
_WASTED: Final = Counter(
    "despacho_work_wasted_total",
    "Images that were inferred, and then nobody wanted the answer.",
    ("model", "cause"),
)


class CannotServeMetrics(Exception):
    """The address of the metrics is no good."""


def begin_at_zero(model: str, stages: Sequence[Stage], *, infers: bool) -> None:
    """Show the counters of a model before they count.

    A rate misses the first event of a series that appears with it.

    Args:
        model: name of the model.
        stages: where this process avoids work.
        infers: whether it may waste any.
    """
    for stage, unwanted in product(stages, get_args(Unwanted)):
        _AVOIDED.labels(model, stage, unwanted)
    for waste in get_args(Waste) if infers else ():
        _WASTED.labels(model, waste)


def count_avoided(model: str, stage: Stage, cause: Unwanted, count: int = 1) -> None:
    """Count images that were not inferred."""
    _AVOIDED.labels(model, stage, cause).inc(count)


def count_wasted(model: str, cause: Waste, count: int = 1) -> None:
    """Count images that were inferred for nobody."""
    _WASTED.labels(model, cause).inc(count)


@contextmanager
def served(address: str, registry: CollectorRegistry = REGISTRY) -> Iterator[None]:
    """Serve the counters of this process over HTTP while inside.

    Args:
        address: `host:port`; port 0: any free one, which the log names. Empty: do not.
        registry: what is served.

    Raises:
        CannotServeMetrics: the address is in use, or not ours.
    """
    if not address:
        yield
        return
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except (OSError, OverflowError) as error:
        raise CannotServeMetrics(f"cannot serve metrics at {address}: {error}") from error
    log.info("metrics served", url=f"http://{host}:{server.server_port}/metrics")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def served_for(environment: dict[str, str], address: str) -> Iterator[None]:
    """Serve the sums of processes that are yet to be started, while inside.

    Args:
        environment: what they will get; told here to count for the sums. They must serve
            nothing by themselves, as only one process can have the address.
        address: as in `served`.

    Raises:
        CannotServeMetrics: the address is in use, or not ours.
    """
    if not address:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="despacho-metrics-") as folder:
        environment[FOLDER_VARIABLE] = folder
        with served_sums(address, folder):
            yield


@contextmanager
def served_sums(address: str, folder: str) -> Iterator[None]:
    """Serve the sums of the counters of several processes over HTTP while inside.

    What a process has counted stays in the sums when it ends.

    Args:
        address: as in `served`.
        folder: into which the processes count: theirs has `FOLDER_VARIABLE`.

    Raises:
        CannotServeMetrics: the address is in use, or not ours.
    """
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    with served(address, registry):
        yield
