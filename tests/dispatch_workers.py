"""What workers may do, in any order, on a real server and in the model."""

import enum
import sys
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    multiple,
    precondition,
    rule,
)

from despacho.job.v1.job_pb2 import DeadLetter, Failure, Reply
from dispatch import keys
from dispatch.jobs import CALL_PRIORITIES, Claim, Outcome, Priority, Room
from tests.dispatch_calls import (
    DEAD_LETTER_MAX_BYTES,
    LEASE_MS,
    LIMITS,
    MAX_DELIVERIES,
    MODEL,
    ROOM_BYTES,
    SLOTS,
    CallSteps,
    Worker,
    endings,
    rooms,
    slots,
)
from tests.dispatch_model import ModelJob, Place


class Afterwards(enum.Enum):
    """What a worker does that was silent for so long that another took over."""

    GONE = enum.auto()
    RENEWS = enum.auto()
    GIVES_BACK = enum.auto()
    ENDS = enum.auto()


class WorkerSteps(CallSteps):
    """The real queues of two workers side by side with the model."""

    claims: Bundle[Claim] = Bundle("claims")

    def take_in_hand(
        self, worker: Worker, claims: Sequence[Claim], expected: Sequence[ModelJob]
    ) -> list[Claim]:
        assert [claim.job.id for claim in claims] == [job.id for job in expected]
        for claim, job in zip(claims, expected, strict=True):
            assert claim.job == job.submission.job
            assert claim.image == job.submission.image
            assert claim.size_bytes == job.size_bytes
            assert claim.attempt == job.deliveries
        worker.hand += claims
        return list(claims)

    def claim(
        self, worker: Worker, room: int, priorities: Sequence[Priority] = tuple(Priority)
    ) -> list[Claim]:
        claims = worker.queue.claim(priorities, Room(room, ROOM_BYTES), block=False)
        return self.take_in_hand(worker, claims, self.model.claim(worker.name, room, priorities))

    def job_of(self, claim: Claim) -> ModelJob:
        return next(
            job
            for job in self.model.jobs
            if job.entry_id == claim.entry_id and job.submission.priority is claim.priority
        )

    @precondition(lambda self: self.model.at(Place.WAITING))
    @rule(target=claims, slot=slots, room=rooms)
    def a_worker_claims(self, slot: str, room: int) -> Any:
        return multiple(*self.claim(self.workers[slot], room))

    @precondition(lambda self: self.model.at(Place.WAITING))
    @rule(slot=slots)
    def a_worker_never_hears_what_it_claimed(self, slot: str) -> None:
        """Lose the reply to a claim, as a connection that breaks does."""
        name = self.workers[slot].name
        for stream in keys.job_streams(MODEL):
            self.redis.xreadgroup(keys.GROUP, name, {stream: ">"})
        self.model.claim(name, sys.maxsize)

    @precondition(lambda self: self.model.at(Place.CLAIMED))
    @rule(slot=slots)
    def a_worker_renews(self, slot: str) -> None:
        worker = self.workers[slot]
        lost = [
            claim for claim in worker.hand if not self.model.renew(self.job_of(claim), worker.name)
        ]
        assert worker.queue.renew(worker.hand) == lost
        worker.hand = [claim for claim in worker.hand if claim not in lost]

    @precondition(lambda self: self.model.at(Place.CLAIMED))
    @rule(slot=slots)
    def a_worker_is_silent_for_a_lease(self, slot: str) -> None:
        for job in self.model.held_by(self.workers[slot].name):
            self.set_idle(job, LEASE_MS + 1)
            job.is_lease_over = True

    def set_idle(self, job: ModelJob, idle_ms: int) -> None:
        """Let a claim look as if it had been renewed that long ago."""
        stream = keys.jobs(MODEL, job.submission.priority)
        entries = (job.entry_id,)
        self.redis.xclaim(stream, keys.GROUP, job.owner, 0, entries, idle=idle_ms, justid=True)

    @precondition(lambda self: self.model.at(Place.CLAIMED))
    @rule(slot=slots)
    def a_worker_crashes(self, slot: str) -> None:
        self.a_worker_is_silent_for_a_lease(slot)
        self.workers[slot].queue.close()
        self.workers[slot] = self.new_worker(slot)

    def reclaim(self, worker: Worker, room: int, *, take_suspect: bool) -> list[Claim]:
        for job in self.model.at(Place.CLAIMED):
            if not job.is_lease_over:
                # What the owner does each second, however slow this machine is.
                self.set_idle(job, 0)
        reclaimed = worker.queue.reclaim(room=room, take_suspect=take_suspect)
        expected, left = self.model.reclaim(worker.name, room=room, take_suspect=take_suspect)
        assert reclaimed.has_suspects == (len(left) > 0)
        return self.take_in_hand(worker, reclaimed.claims, expected)

    @precondition(lambda self: self.model.at(Place.CLAIMED))
    @rule(target=claims, slot=slots, room=rooms, take_suspect=st.booleans())
    def a_worker_reclaims(self, slot: str, room: int, *, take_suspect: bool) -> Any:
        return multiple(*self.reclaim(self.workers[slot], room, take_suspect=take_suspect))

    @precondition(lambda self: self.model.at(Place.CLAIMED))
    @rule(slot=slots, outcome=endings)
    def a_worker_ends_what_it_has(self, slot: str, outcome: Outcome) -> None:
        for claim in list(self.workers[slot].hand):
            self.end(claim, outcome)

    # Several steps in one, as chance alone seldom puts them together.
    @precondition(lambda self: self.model.at(Place.CLAIMED))
    @rule(target=claims, slots=st.permutations(SLOTS), room=rooms, then=st.sampled_from(Afterwards))
    def a_worker_takes_over(self, slots: list[str], room: int, then: Afterwards) -> Any:
        silent, other = slots
        self.a_worker_is_silent_for_a_lease(silent)
        claims = self.reclaim(self.workers[other], room, take_suspect=True)
        match then:
            case Afterwards.GONE:
                self.a_worker_crashes(silent)
            case Afterwards.RENEWS:
                self.a_worker_renews(silent)
            case Afterwards.GIVES_BACK:
                self.a_worker_gives_back(silent, LIMITS.jobs)
            case Afterwards.ENDS:
                self.a_worker_ends_what_it_has(silent, Outcome.COMPLETED)
        return multiple(*claims)

    @precondition(lambda self: not self.model.in_flight())
    @rule(target=claims, slot=slots, priorities=st.permutations(CALL_PRIORITIES))
    def one_of_a_millisecond_is_cancelled(self, slot: str, priorities: list[Priority]) -> Any:
        """Retire one of three claims whose entries have the same id, each in its own stream."""
        cancelled, *_ = self.arrive_together([(priority, 0) for priority in priorities])
        claimed = self.claim(self.workers[slot], LIMITS.jobs)
        self.nobody_waits_any_more(cancelled, Outcome.CANCELLED)
        self.a_worker_renews(slot)
        return multiple(*claimed)

    @precondition(lambda self: self.model.at(Place.WAITING))
    @rule(slots=st.permutations(SLOTS))
    def a_job_kills_two_workers(self, slots: list[str]) -> None:
        first, second = slots
        self.claim(self.workers[first], 1)
        self.a_worker_crashes(first)
        self.reclaim(self.workers[second], 0, take_suspect=True)
        self.a_worker_crashes(second)
        for claim in self.reclaim(self.workers[first], 0, take_suspect=True):
            self.end(claim, Outcome.COMPLETED)

    @rule(claim=claims, outcome=endings)
    def a_claim_ends(self, claim: Claim, outcome: Outcome) -> None:
        """Answer for the first time, again, or for a worker that is not the owner any more."""
        self.end(claim, outcome)

    def end(self, claim: Claim, outcome: Outcome) -> None:
        job = self.job_of(claim)
        queue = self.workers[SLOTS[0]].queue  # which connection it comes from means nothing
        # No two are the same, so that one that takes another's place is noticed.
        failure = Failure(reason=uuid4().hex)
        reply = Reply(job_id=job.id, attempt=claim.attempt, failure=failure)
        if claim.attempt < MAX_DELIVERIES:
            (came_to,) = queue.complete([(claim, reply, outcome)])
            assert came_to is self.model.complete(job, reply, outcome)
        else:
            letter = DeadLetter(job=claim.job, deliveries=claim.attempt)
            came_to = queue.quarantine(claim, reply, letter, DEAD_LETTER_MAX_BYTES)
            assert came_to is self.model.quarantine(job, reply)
        for worker in self.workers.values():
            worker.hand = [each for each in worker.hand if each is not claim]

    @precondition(lambda self: self.model.at(Place.CLAIMED))
    @rule(slot=slots, count=rooms)
    def a_worker_gives_back(self, slot: str, count: int) -> None:
        worker = self.workers[slot]
        given = worker.hand[:count]
        was_held = [self.model.give_back(self.job_of(claim), worker.name) for claim in given]
        assert worker.queue.give_back(given) == sum(was_held)
        worker.hand = worker.hand[count:]

    @precondition(lambda self: self.model.at(Place.CLAIMED))
    @rule(slot=slots)
    def a_worker_is_replaced(self, slot: str) -> None:
        self.a_worker_gives_back(slot, len(self.workers[slot].hand))
        self.workers[slot].queue.leave()
        # What it held without knowing is pending under a name that is nobody's now.
        self.a_worker_crashes(slot)
