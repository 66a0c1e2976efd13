"""The nouns of dispatch: what is submitted, and what is claimed."""

import enum
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from despacho.job.v1.job_pb2 import Job


class Priority(enum.StrEnum):
    """Order in which jobs are taken: one stream each, first to last."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"
    OPERATION = "operation"
    """That of all operations, and of no call: nobody waits while a call does."""


CALL_PRIORITIES: Final = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
"""What a call may have."""


class Outcome(enum.StrEnum):
    """How a job ended: the field of `totals` that it adds to."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    POISONED = "poisoned"
    ORPHANED = "orphaned"


Place = tuple[Priority, str]
"""Priority and entry id of a job. Ids are unique within a stream: of what is accepted in the same
millisecond, the first of each priority has the same one."""

OnSpared = Callable[[str, Outcome], None]
"""Told of each job that was retired before a worker had it: the model, and how it ended."""


class Completion(enum.IntEnum):
    """What became of an answer."""

    PUBLISHED = 1
    TOO_LATE = 0
    """Somebody else had retired the job: it was cancelled, or taken over and answered."""

    ORPHANED = -1
    """Nobody is there any more who could take it."""


# Made for each call, so not frozen: that would take three times as long.
@dataclass(slots=True, eq=False)
class Submission:
    """One job on its way into Redis; does not change."""

    job: Job
    image: bytes
    priority: Priority
    answer_by: float
    """When its caller must have been answered, seconds of the process's monotonic clock."""


@dataclass(frozen=True, slots=True)
class Room:
    """How much more a worker may take in hand."""

    jobs: int
    size_bytes: int
    """Bytes of images; the last ones taken may exceed it."""

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return self.jobs > 0 and self.size_bytes > 0

    def without(self, claims: "Collection[Claim]") -> "Room":
        """Return what is left when these are taken."""
        taken_bytes = sum(claim.size_bytes for claim in claims)
        return Room(self.jobs - len(claims), self.size_bytes - taken_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """One job in a worker's hands."""

    job: Job
    image: bytes
    priority: Priority
    entry_id: str
    """Where it is in the stream of its priority."""

    attempt: int
    """Which delivery this is, counted from 1."""

    deadline_ms: int
    """When nobody waits for it any more, milliseconds of Redis time."""

    size_bytes: int
    """What it counts for in `load`."""

    @property
    def place(self) -> Place:
        """Where it is: no other job has it, and it does when it is claimed again."""
        return self.priority, self.entry_id

    @property
    def enqueued_ms(self) -> int:
        """When it was accepted, milliseconds of Redis time."""
        return int(self.entry_id.partition("-")[0])

    @property
    def is_operation(self) -> bool:
        """Whether its answer is kept for later, so that it makes way for calls."""
        return self.priority is Priority.OPERATION

    @property
    def is_suspect(self) -> bool:
        """Whether a worker was lost while it held this job, so that it must run alone."""
        return self.attempt > 1
