"""The whole system at one moment, as operators watch it."""

from dataclasses import dataclass

from despacho.job.v1.job_pb2 import FrontEndCard
from dispatch.stats_store import ModelStats


@dataclass(frozen=True, slots=True)
class Sample:
    """The whole system at one moment."""

    at_s: float
    """Seconds of the monotonic clock."""

    wall_s: float
    """Seconds since 1970."""

    models: dict[str, ModelStats]
    front_ends: dict[str, FrontEndCard]
