"""What should be true of dispatch: the same operations on plain lists, without Redis or time."""

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from despacho.job.v1.job_pb2 import Reply
from dispatch.job_store import QueueLimits, size_bytes
from dispatch.jobs import CALL_PRIORITIES, Completion, Outcome, Priority, Submission

RELEASED = "released"
"""Who holds the jobs that were given back."""


class Place(enum.Enum):
    """Where a job is."""

    OUTSIDE = enum.auto()
    WAITING = enum.auto()
    CLAIMED = enum.auto()
    RETIRED = enum.auto()


class Key(enum.Enum):
    """What `job:<id>` says."""

    NONE = enum.auto()
    ENTRY = enum.auto()
    VOID = enum.auto()
    ENDED = enum.auto()
    """It has outlived its time; only a cancel may still come."""


@dataclass(eq=False)
class ModelJob:
    """One job, from before it is sent until after it is over."""

    submission: Submission
    place: Place = Place.OUTSIDE
    key: Key = Key.NONE
    admission: int = 0
    """Its position among all that were admitted."""

    entry_id: str = ""
    """The name that Redis gave its entry."""

    owner: str = ""
    deliveries: int = 0
    is_lease_over: bool = False
    was_claimed: bool = False
    reply: Reply | None = None
    """The one that was published."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.submission.job.id

    @property
    def size_bytes(self) -> int:
        """What it counts for in the limits."""
        return size_bytes(self.submission)

    @property
    def is_retired(self) -> bool:
        """Whether it is over."""
        return self.place is Place.RETIRED

    @property
    def is_in_flight(self) -> bool:
        """Whether it is admitted and not retired."""
        return self.place in (Place.WAITING, Place.CLAIMED)


class DispatchModel:
    """One model's queue, one front-end, and any workers. Changes nothing but itself."""

    def __init__(self, limits: QueueLimits, *, dead_letter_max_bytes: int) -> None:
        self.limits = limits
        self.dead_letter_max_bytes = dead_letter_max_bytes
        self.jobs: list[ModelJob] = []
        self.totals: Counter[str] = Counter()
        self.is_front_end_there = True
        self.published: list[str] = []
        """Ids of the jobs whose reply was ever published."""

        self.unread: list[str] = []
        """Ids of the jobs whose reply lies in the stream, unread."""

        self.dead: list[ModelJob] = []

    def add(self, submission: Submission) -> ModelJob:
        """Make a job that nothing has happened to."""
        job = ModelJob(submission)
        self.jobs.append(job)
        return job

    def at(self, place: Place, priority: Priority | None = None) -> list[ModelJob]:
        """Return the jobs there, in the order in which they are taken."""
        return [
            job
            for each in Priority
            for job in sorted(self.jobs, key=lambda job: job.admission)
            if job.place is place and job.submission.priority is each and priority in (None, each)
        ]

    def in_flight(self, priority: Priority | None = None) -> list[ModelJob]:
        """Return the jobs that have an entry."""
        return [*self.at(Place.WAITING, priority), *self.at(Place.CLAIMED, priority)]

    def calls_in_flight(self) -> list[ModelJob]:
        """Return the jobs that have an entry and a caller who waits for them."""
        return [job for priority in CALL_PRIORITIES for job in self.in_flight(priority)]

    def load_bytes(self) -> int:
        """Return what is admitted of calls and not retired."""
        return sum(job.size_bytes for job in self.calls_in_flight())

    def is_full(self) -> bool:
        """Whether no more calls are admitted, however small."""
        return len(self.calls_in_flight()) >= self.limits.jobs

    def enqueue(self, job: ModelJob) -> str:
        """Admit a job; return the limit that refuses it, or an empty string."""
        if job.key is not Key.NONE:
            return ""
        if self.is_full():
            return "jobs"
        if self.calls_in_flight() and self.load_bytes() + job.size_bytes > self.limits.size_bytes:
            return "bytes"
        job.key = Key.ENTRY
        self._admit(job)
        return ""

    def _admit(self, job: ModelJob) -> None:
        self.totals["accepted"] += 1
        job.place, job.admission = Place.WAITING, self.totals["accepted"]

    def cancel(self, job: ModelJob, outcome: Outcome) -> None:
        """Retire a job that can be found, or mark it as not to be admitted."""
        if job.key in (Key.NONE, Key.ENDED):
            job.key = Key.VOID
        elif job.key is Key.ENTRY and job.is_in_flight:
            self._retire(job, outcome)

    def sweep_calls(self) -> int:
        """Retire all calls, as if they were long overdue; return how many there were."""
        calls = self.calls_in_flight()
        for job in calls:
            self._retire(job, Outcome.EXPIRED)
        return len(calls)

    def front_end_goes(self) -> None:
        """Lose the reply stream and what lay in it."""
        self.is_front_end_there = False
        self.unread.clear()

    def claim(
        self, worker: str, room: int, priorities: Sequence[Priority] = tuple(Priority)
    ) -> list[ModelJob]:
        """Give the first that wait to a worker."""
        taken = [job for each in priorities for job in self.at(Place.WAITING, each)][:room]
        for job in taken:
            job.place = Place.CLAIMED
            self._give(job, worker, attempt=1)
        return taken

    def reclaim(
        self, worker: str, *, room: int, take_suspect: bool
    ) -> tuple[list[ModelJob], list[ModelJob]]:
        """Give a worker what nobody holds: what needs no care up to `room`, and one suspect.

        Returns:
            What was taken, and the suspects that were not.
        """
        left = {True: int(take_suspect), False: room}
        taken, suspects = [], []
        for job in self._up_for_reclaim():
            # What it claimed itself and never heard of has not been tried by anybody.
            attempt = job.deliveries + (job.owner != worker)
            is_suspect = attempt > 1
            if left[is_suspect] > 0:
                left[is_suspect] -= 1
                taken.append(job)
                self._give(job, worker, attempt=attempt)
            elif is_suspect:
                suspects.append(job)
        return taken, suspects

    def _up_for_reclaim(self) -> list[ModelJob]:
        return [
            job
            for priority in Priority
            # False comes first: what was given back is looked at before what was left behind.
            for job in sorted(self.at(Place.CLAIMED, priority), key=lambda job: job.is_lease_over)
            if job.is_lease_over or job.owner == RELEASED
        ]

    def _give(self, job: ModelJob, worker: str, *, attempt: int) -> None:
        job.owner, job.deliveries, job.is_lease_over = worker, attempt, False
        job.was_claimed = True

    def held_by(self, worker: str) -> list[ModelJob]:
        """Return the jobs whose claim is that worker's."""
        return [job for job in self.at(Place.CLAIMED) if job.owner == worker]

    def renew(self, job: ModelJob, worker: str) -> bool:
        """Keep a lease; return whether it was this worker's."""
        is_held = job.place is Place.CLAIMED and job.owner == worker
        if is_held:
            job.is_lease_over = False
        return is_held

    def give_back(self, job: ModelJob, worker: str) -> bool:
        """Release a job; return whether it was this worker's."""
        is_held = job.place is Place.CLAIMED and job.owner == worker
        if is_held:
            self._give(job, RELEASED, attempt=job.deliveries - 1)
        return is_held

    def complete(self, job: ModelJob, reply: Reply, outcome: Outcome) -> Completion:
        """Answer a job, whoever holds it."""
        if job.place is not Place.CLAIMED:
            return Completion.TOO_LATE
        is_orphan = not self.is_expected(job) and outcome is not Outcome.EXPIRED
        self._retire(job, Outcome.ORPHANED if is_orphan else outcome)
        return self._publish(job, reply)

    def quarantine(self, job: ModelJob, reply: Reply) -> Completion:
        """Set a job aside, whoever holds it."""
        if job.place is not Place.CLAIMED:
            return Completion.TOO_LATE
        self._retire(job, Outcome.POISONED)
        if job.size_bytes <= self.dead_letter_max_bytes:
            self.dead.append(job)
        while sum(letter.size_bytes for letter in self.dead) > self.dead_letter_max_bytes:
            self.dead.pop(0)
        return self._publish(job, reply)

    def _retire(self, job: ModelJob, outcome: Outcome) -> None:
        job.place = Place.RETIRED
        self.totals[outcome.value] += 1

    def _publish(self, job: ModelJob, reply: Reply) -> Completion:
        if not self.is_expected(job):
            return Completion.ORPHANED
        self._deliver(job, reply)
        return Completion.PUBLISHED

    def is_expected(self, job: ModelJob) -> bool:  # noqa: ARG002 - not all jobs are calls
        """Whether somebody is there who takes its reply."""
        return self.is_front_end_there

    def _deliver(self, job: ModelJob, reply: Reply) -> None:
        job.reply = reply
        self.published.append(job.id)
        self.unread.append(job.id)
