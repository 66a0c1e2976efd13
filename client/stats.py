"""What `admin.watch_stats` returns: frozen values that know nothing of the wire."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Queue:
    """One of the queues of a model."""

    name: str
    """`high`, `normal`, `low` or `operation`."""

    waiting: int
    """Images that no worker has taken yet."""

    claimed: int
    """Images in the hands of workers."""

    oldest_age_s: float
    """Since when the oldest of both is there, seconds; 0 when there is none."""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long answered images took in the servers; right to within 10 %."""

    images: int
    """How many were answered."""

    p50_s: float | None
    """What half of them stayed below, seconds; like the others None if there were none."""

    p90_s: float | None
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class Worker:
    """One live worker."""

    name: str

    model_version: str

    ready: bool
    """False while it loads the model."""

    in_hand: int
    """Images it has taken and not answered."""

    images_per_s: float

    mean_batch_size: float
    """Images in a batch, on average; 0 if there was no batch."""

    busy: float
    """Share of the time in which its model was running. Range [0, 1]."""


@dataclass(frozen=True, slots=True)
class ModelStats:
    """One model."""

    model: str

    queues: tuple[Queue, ...]
    """High, normal and low priority, then operations."""

    queued_bytes: int
    """What all that counts for in the limits."""

    images_per_s: float
    """Images that ended, answered or not."""

    latency: Latency

    failures: Mapping[str, int]
    """How many images and calls failed, by reason, most frequent first."""

    workers: tuple[Worker, ...]
    """Sorted by name."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What the whole system does, over all servers and workers."""

    time: datetime
    """When it was seen, by the clock of the server; with a time zone."""

    window_s: float
    """Over how long rates, latencies and failures are counted, seconds."""

    models: tuple[ModelStats, ...]
    """Sorted by name."""

    failures: Mapping[str, int]
    """What failed before it was known which model was meant."""

    servers: int
    """Servers that are alive."""
