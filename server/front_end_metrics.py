"""What a front-end knows anyway, as metrics: read when the page is made, in a thread of its own."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, Protocol

from dispatch import errors
from dispatch.latency import EDGES_S
from dispatch.link import Link
from dispatch.stats_store import ModelStats
from server.pending import PendingReplies
from server.samples import Sample
from server.status import INTERNAL_REASON
from server.tally import NO_MODEL, TALLY, Tally
from telemetry import metrics_catalogue as catalogue
from telemetry.metrics_instruments import Gauge, Labels, Source, Values

STALE_S: Final = 5.0
"""An older look at the queues is not shown: better nothing than what was once true."""

REASONS: Final = (
    INTERNAL_REASON,
    *(leaf.reason for leaf in errors.leaves() if leaf is not errors.OutcomeUnknown),
)
"""All that callers may be told."""

_ENDS: Final = tuple(EDGES_S.index(edge) + 1 for edge in catalogue.ANSWER_EDGES_S)
"""Of each bucket that is shown, how many of those that are counted lie below its edge."""


class Watch(Protocol):
    """What this needs of `Stats`."""

    def latest(self) -> Sample | None:
        """Return the last look at the system; None: there was none yet."""
        ...


@contextmanager
def shown(pending: PendingReplies, stats: Watch, link: Link) -> Iterator[None]:
    """Show the figures of a front-end while inside; its counters begin at zero, and stay."""
    catalogue.LATE_REPLIES.begin()
    for purpose in ("write", "announce", "replies"):
        catalogue.REDIS_BROKEN.begin(purpose)
    looks = Looks(stats)
    sources: dict[Gauge, Source] = {
        catalogue.IN_FLIGHT_JOBS: lambda: [((), (len(pending),))],
        catalogue.IN_FLIGHT_BYTES: lambda: [((), (pending.size_bytes,))],
        catalogue.REDIS_UP: lambda: [((), (int(link.is_up),))],
        catalogue.QUEUE_JOBS: looks.jobs,
        catalogue.QUEUE_OLDEST: looks.oldest,
        catalogue.QUEUE_BYTES: looks.size,
        catalogue.WORKERS: looks.workers,
    }
    with ExitStack() as stack:
        for gauge, source in sources.items():
            stack.enter_context(gauge.reading(source))
        yield


class Looks:
    """The last look at queues and workers, by model."""

    def __init__(self, stats: Watch) -> None:
        self._stats = stats

    def jobs(self) -> Iterator[tuple[Labels, Values]]:
        """Return how many jobs are in each queue."""
        for model, stats in self._models():
            for priority, look in stats.queues.items():
                waiting = max(0, look.entries - look.claimed)
                yield (model, priority.value, "waiting"), (waiting,)
                yield (model, priority.value, "claimed"), (look.claimed,)

    def oldest(self) -> Iterator[tuple[Labels, Values]]:
        """Return how old the oldest job of each queue is, seconds."""
        for model, stats in self._models():
            for priority, look in stats.queues.items():
                yield (model, priority.value), (look.oldest_ms / 1000,)

    def size(self) -> Iterator[tuple[Labels, Values]]:
        """Return what the jobs of each model count for, bytes."""
        for model, stats in self._models():
            yield (model,), (stats.size_bytes,)

    def workers(self) -> Iterator[tuple[Labels, Values]]:
        """Return how many workers each model has."""
        for model, stats in self._models():
            ready = sum(worker.ready for worker in stats.workers.values())
            yield (model, "ready"), (ready,)
            yield (model, "loading"), (len(stats.workers) - ready,)

    def _models(self) -> list[tuple[str, ModelStats]]:
        sample = self._stats.latest()
        if sample is None or time.monotonic() - sample.at_s > STALE_S:
            return []
        return list(sample.models.items())


def answers(tally: Tally = TALLY) -> Iterator[tuple[Labels, Values]]:
    """Return how long answers took, by model."""
    for model, counted in tally.read().items():
        if model != NO_MODEL:
            counts, begin = [], 0
            for end in (*_ENDS, len(counted.latency_counts)):
                counts.append(sum(counted.latency_counts[begin:end]))
                begin = end
            yield (model,), (*counts, counted.latency_s)


def failures(tally: Tally = TALLY) -> Iterator[tuple[Labels, Values]]:
    """Return how much failed, by model and reason; of each model all reasons."""
    for model, counted in tally.read().items():
        for reason in {*REASONS, *counted.failures}:
            yield (model, reason), (counted.failures.get(reason, 0),)


catalogue.ANSWER_SECONDS.add_source(answers)
catalogue.FAILURES.add_source(failures)
