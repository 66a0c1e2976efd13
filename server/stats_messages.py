"""From samples of the system to what is told of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import TypeVar

from despacho.job.v1.job_pb2 import FrontEndCard, ModelTally, WorkerCard
from dispatch.latency import quantile_s
from dispatch.stats_store import ModelStats
from prediction.v1 import admin_pb2 as pb
from server.samples import Sample
from server.tally import NO_MODEL

Value = TypeVar("Value")


def to_response(samples: Sequence[Sample], model: str) -> pb.WatchStatsResponse:
    """Return what the samples show.

    Args:
        samples: oldest first, at least one.
        model: the only one to show; empty: all.
    """
    latest, tallies = samples[-1], _Tallies(samples)
    window_s = latest.at_s - samples[0].at_s
    response = pb.WatchStatsResponse(servers=len(latest.front_ends))
    response.time.FromMilliseconds(round(latest.wall_s * 1000))
    response.window.FromMilliseconds(round(window_s * 1000))
    response.failures.extend(_failures(tallies.failures(NO_MODEL)))
    for name in sorted(latest.models):
        if model in ("", name):
            of_model = [sample.models.get(name) for sample in samples]
            told = response.models.add(model=name)
            _tell_queues(told, latest.models[name])
            told.images_per_second = _per_s(_growth(of_model, lambda one: one.ended), window_s)
            _tell_latency(told.latency, tallies.latency_counts(name))
            told.failures.extend(_failures(tallies.failures(name)))
            told.workers.extend(_workers(latest.models[name], of_model, window_s))
    return response


class _Tallies:
    """What the front-ends did between the samples, all together.

    A count that fell began again; what it lost is not taken off.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._steps = [
            (_by_model(before.front_ends[server]), _by_model(card))
            for before, after in pairwise(samples)
            for server, card in after.front_ends.items()
            # What it did before it was first seen may be from long ago.
            if server in before.front_ends
        ]

    def failures(self, model: str) -> Counter[str]:
        found: Counter[str] = Counter()
        for before, after in self._steps:
            if model in after:
                then = before[model].failures if model in before else {}
                found.update(
                    {
                        reason: max(0, count - then.get(reason, 0))
                        for reason, count in after[model].failures.items()
                    }
                )
        return found

    def latency_counts(self, model: str) -> list[int]:
        found: list[int] = []
        for before, after in self._steps:
            if model in after:
                then = before[model].latency_counts if model in before else ()
                found = [
                    so_far + max(0, now - earlier)
                    for so_far, now, earlier in zip_longest(
                        found, after[model].latency_counts, then, fillvalue=0
                    )
                ]
        return found


def _by_model(card: FrontEndCard) -> dict[str, ModelTally]:
    return {tally.model: tally for tally in card.models}


def _growth(values: Sequence[Value | None], count: Callable[[Value], int]) -> int:
    """Return by how much a count grew; where it fell, it began again."""
    return sum(
        max(0, count(after) - count(before))
        for before, after in pairwise(values)
        if before is not None and after is not None
    )


def _per_s(count: float, window_s: float) -> float:
    return count / window_s if window_s > 0 else 0.0


def _failures(counts: Mapping[str, int]) -> Iterable[pb.FailureCount]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return (pb.FailureCount(reason=reason, count=count) for reason, count in ordered if count > 0)


def _tell_queues(told: pb.ModelStats, stats: ModelStats) -> None:
    told.queued_bytes = stats.size_bytes
    for priority, look in stats.queues.items():
        queue = told.queues.add(
            name=priority.value, waiting=max(0, look.entries - look.claimed), claimed=look.claimed
        )
        queue.oldest_age.FromMilliseconds(look.oldest_ms)


def _tell_latency(told: pb.LatencyStats, counts: Sequence[int]) -> None:
    told.images = sum(counts)
    if not told.images:
        return
    for duration, share in ((told.p50, 0.5), (told.p90, 0.9), (told.p99, 0.99)):
        duration.FromMicroseconds(round(quantile_s(counts, share) * 1e6))


def _workers(
    latest: ModelStats, samples: Sequence[ModelStats | None], window_s: float
) -> Iterable[pb.WorkerStats]:
    for name, card in sorted(latest.workers.items()):
        cards = [None if sample is None else sample.workers.get(name) for sample in samples]
        images = _growth(cards, lambda one: one.images)
        batches = _growth(cards, lambda one: one.batches)
        yield pb.WorkerStats(
            worker=name,
            model_version=card.model_version,
            ready=card.ready,
            in_hand=card.in_hand,
            images_per_second=_per_s(images, window_s),
            mean_batch_size=images / batches if batches else 0.0,
            busy=min(1.0, _per_s(_inference_us(cards) / 1e6, window_s)),
        )


def _inference_us(cards: Sequence[WorkerCard | None]) -> int:
    return _growth(cards, lambda one: one.inference_us)
