"""The nouns of dispatch: what is submitted, and what is claimed."""

import enum
from dataclasses import dataclass

from despacho.job.v1.job_pb2 import Job


class Priority(enum.StrEnum):
    """Order in which jobs are taken: one stream each, first to last."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Outcome(enum.StrEnum):
    """How a job ended: the field of `totals` that it adds to."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    POISONED = "poisoned"
    ORPHANED = "orphaned"


@dataclass(frozen=True, slots=True, eq=False)
class Submission:
    """One job on its way into Redis."""

    job: Job
    image: bytes
    priority: Priority
    answer_by: float
    """When its caller must have been answered, seconds of the process's monotonic clock."""


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """One job in a worker's hands."""

    job: Job
    image: bytes
    priority: Priority
    entry_id: str
    attempt: int
    """Which delivery this is, counted from 1."""

    deadline_ms: int
    """When nobody waits for it any more, milliseconds of Redis time."""

    size_bytes: int
    """What it counts for in `load`."""

    @property
    def enqueued_ms(self) -> int:
        """When it was accepted, milliseconds of Redis time."""
        return int(self.entry_id.partition("-")[0])

    @property
    def is_suspect(self) -> bool:
        """Whether a worker was lost while it held this job, so that it must run alone."""
        return self.attempt > 1
