"""Between statistics and protobuf messages; no I/O."""

from collections.abc import Iterable
from datetime import UTC
from typing import Final

from prediction.v1 import admin_pb2

from .stats import Latency, ModelStats, Queue, Stats, Worker
from .wire import seconds_of

DEFAULT_PERIOD_S: Final = 1.0
"""How often the server shows statistics, seconds."""


def watch_request(model: str, period_s: float) -> admin_pb2.WatchStatsRequest:
    """Build the request to be shown statistics."""
    request = admin_pb2.WatchStatsRequest(model=model)
    request.period.FromMicroseconds(round(period_s * 1e6))
    return request


def stats(message: admin_pb2.WatchStatsResponse) -> Stats:
    """Return what a message shows."""
    return Stats(
        time=message.time.ToDatetime(UTC),
        window_s=seconds_of(message.window),
        models=tuple(map(_model, message.models)),
        failures=_failures(message.failures),
        servers=message.servers,
    )


def _model(message: admin_pb2.ModelStats) -> ModelStats:
    return ModelStats(
        model=message.model,
        queues=tuple(
            Queue(queue.name, queue.waiting, queue.claimed, seconds_of(queue.oldest_age))
            for queue in message.queues
        ),
        queued_bytes=message.queued_bytes,
        images_per_s=message.images_per_second,
        latency=_latency(message.latency),
        failures=_failures(message.failures),
        workers=tuple(
            Worker(
                name=worker.worker,
                model_version=worker.model_version,
                ready=worker.ready,
                in_hand=worker.in_hand,
                images_per_s=worker.images_per_second,
                mean_batch_size=worker.mean_batch_size,
                busy=worker.busy,
            )
            for worker in message.workers
        ),
    )


def _latency(message: admin_pb2.LatencyStats) -> Latency:
    if not message.images:
        return Latency(0, None, None, None)
    return Latency(
        message.images, seconds_of(message.p50), seconds_of(message.p90), seconds_of(message.p99)
    )


def _failures(counts: Iterable[admin_pb2.FailureCount]) -> dict[str, int]:
    return {each.reason: each.count for each in counts}
