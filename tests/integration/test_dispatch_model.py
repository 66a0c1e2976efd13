"""Any order of operations on a real server, next to a model of what should be true.

Hypothesis makes up the order, and shortens one that fails to a few lines: each is
a rule below, with its arguments.
"""

import asyncio
import enum
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from despacho.job.v1.job_pb2 import DeadLetter, Failure, Job, ModelCard, Reply, WorkerCard
from dispatch import keys
from dispatch.errors import DespachoError, QueueFull
from dispatch.job_store import Cancel, Enqueue, JobStore, Operation, QueueLimits, size_bytes
from dispatch.jobs import CALL_PRIORITIES, Claim, Outcome, Priority, Room, Submission
from dispatch.work_queue import LEASE_S, WorkQueue
from tests.dispatch_model import DispatchModel, Key, ModelJob, Place
from tests.dispatch_state import DispatchState, keys_against_their_page
from tests.redis_server import RedisServer

MODEL: Final = "m"
SERVER: Final = "server-1"
LIMITS: Final = QueueLimits(jobs=6, size_bytes=6000)
DEAD_LETTER_MAX_BYTES: Final = 1500
MAX_DELIVERIES: Final = 3
ROOM_BYTES: Final = 1 << 30

TIMEOUT_S: Final = 3600
"""So long that no key ends by itself: time passes only where a rule says so."""

LEASE_MS: Final = round(LEASE_S * 1000)

SLOTS: Final = ("a", "b")
"""Two at a time meet more often than three; each crash adds the name of one that is gone."""

slots = st.sampled_from(SLOTS)
priorities = st.sampled_from(CALL_PRIORITIES)
rooms = st.integers(min_value=1, max_value=5)
image_sizes = st.sampled_from([0, 1, 300, 1000])
retirements = st.sampled_from([Outcome.CANCELLED, Outcome.EXPIRED])
endings = st.sampled_from([Outcome.COMPLETED, Outcome.FAILED, Outcome.EXPIRED])


class Afterwards(enum.Enum):
    """What a worker does that was silent for so long that another took over."""

    GONE = enum.auto()
    RENEWS = enum.auto()
    GIVES_BACK = enum.auto()
    ENDS = enum.auto()


class Worker:
    """A worker as dispatch sees it: connections, and the claims it believes it has."""

    def __init__(self, server: RedisServer, name: str) -> None:
        self.name = name
        self.hand: list[Claim] = []
        self.queue = WorkQueue(server.url, MODEL, name)
        self.queue.open()
        # Connected for longer than a lease, so that it may judge others.
        self.queue._reachable_since -= LEASE_S + 1
        self.queue.announce(WorkerCard(worker=name), ModelCard(name=MODEL), has_changed=True)


def limit_of(refusal: DespachoError | None) -> str:
    """Return the limit that refused an operation, or an empty string."""
    if refusal is None:
        return ""
    assert isinstance(refusal, QueueFull)
    return refusal.subject.rpartition("/")[2]


class DispatchMachine(RuleBasedStateMachine):
    """The real store and queue side by side with the model."""

    jobs: Bundle[ModelJob] = Bundle("jobs")
    claims: Bundle[Claim] = Bundle("claims")

    def __init__(self, server: RedisServer) -> None:
        super().__init__()
        self.model = DispatchModel(LIMITS, dead_letter_max_bytes=DEAD_LETTER_MAX_BYTES)
        self.server = server
        self.redis = server.client()
        self.redis.flushall()
        self.redis.script_flush()
        self.loop = asyncio.Runner()
        self.store = JobStore(server.url, SERVER, LIMITS)
        self.replies = self.store.replies(MODEL)
        self.loop.run(self.replies.open())
        self.streams_opened = 1
        self.published: dict[tuple[int, bytes], str] = {}
        """Job of each reply that was ever seen in the stream."""

        self.workers_started = 0
        self.workers = {slot: self.new_worker(slot) for slot in SLOTS}

    def new_worker(self, slot: str) -> Worker:
        # One that starts again has a name that no worker had before, as in production.
        self.workers_started += 1
        return Worker(self.server, f"worker-{slot}{self.workers_started}")

    def teardown(self) -> None:
        """Drain everything, unless a rule has failed already, and look what is left."""
        try:
            if sys.exc_info()[0] is None:
                self.drain()
                self.assert_nothing_is_left()
        finally:
            for worker in self.workers.values():
                worker.queue.close()
            self.loop.run(self.close())
            self.loop.close()
            self.redis.close()

    async def close(self) -> None:
        """Close the connections of the front-end."""
        await self.replies.aclose()
        await self.store.__aexit__(None, None, None)

    # --- What a front-end does ------------------------------------------------

    def new_job(self, priority: Priority, image_bytes: int) -> ModelJob:
        job = Job(id=uuid4().hex, model=MODEL, reply_to=SERVER, top_k=1)
        image = (job.id.encode() * (image_bytes // 32 + 1))[:image_bytes]
        return self.model.add(Submission(job, image, priority, time.monotonic() + TIMEOUT_S))

    def send(self, operation: Operation) -> str:
        """Send an operation; return the limit that refused it, or an empty string."""
        (refusal,) = self.loop.run(self.store.send([operation]))
        return limit_of(refusal)

    def enqueue(self, job: ModelJob) -> None:
        if job.key is Key.ENDED:
            return  # its caller was answered long ago, so nobody enqueues it again
        assert self.send(Enqueue(job.submission)) == self.model.enqueue(job)
        self.note_entry_id(job)

    def note_entry_id(self, job: ModelJob) -> None:
        if job.key is Key.ENTRY:
            where = self.redis.get(keys.job(MODEL, job.id))
            assert isinstance(where, bytes)
            job.entry_id = where.decode().partition(" ")[2]

    @rule(target=jobs, priority=priorities, image_bytes=image_sizes)
    def a_call_arrives(self, priority: Priority, image_bytes: int) -> ModelJob:
        job = self.new_job(priority, image_bytes)
        self.enqueue(job)
        return job

    @precondition(lambda self: len(self.model.in_flight()) < LIMITS.jobs)
    @rule(target=jobs, each=st.lists(st.tuples(priorities, image_sizes), min_size=2, max_size=4))
    def calls_arrive_together(self, each: list[tuple[Priority, int]]) -> Any:
        """Send jobs as one batch, in which the first one is sent once more."""
        new = [self.new_job(priority, image_bytes) for priority, image_bytes in each]
        sent = [*new, new[0]]
        refusals = self.loop.run(self.store.send([Enqueue(job.submission) for job in sent]))
        for job, refusal in zip(sent, refusals, strict=True):
            assert limit_of(refusal) == self.model.enqueue(job)
            self.note_entry_id(job)
        return multiple(*new)

    # Earlier it would fill the queue and leave no room for anything else to happen.
    @precondition(lambda self: 3 <= len(self.model.calls_in_flight()) < LIMITS.jobs)
    @rule(target=jobs, priority=priorities, beyond_bytes=st.integers(-1, 1))
    def a_call_arrives_at_the_limit(self, priority: Priority, beyond_bytes: int) -> ModelJob:
        overhead_bytes = size_bytes(self.new_job(priority, 0).submission)
        room_bytes = LIMITS.size_bytes - self.model.load_bytes() - overhead_bytes
        job = self.new_job(priority, max(0, room_bytes + beyond_bytes))
        self.enqueue(job)
        return job

    @rule(job=jobs)
    def an_enqueue_is_sent_again(self, job: ModelJob) -> None:
        self.enqueue(job)

    @rule(job=jobs, outcome=retirements)
    def nobody_waits_any_more(self, job: ModelJob, outcome: Outcome) -> None:
        self.send(Cancel.of(job.submission, outcome))
        self.model.cancel(job, outcome)

    @precondition(lambda self: self.model.in_flight())
    @rule(target=jobs, priority=priorities, outcome=retirements)
    def a_cancel_overtakes_its_enqueue(self, priority: Priority, outcome: Outcome) -> ModelJob:
        job = self.new_job(priority, 1)
        self.nobody_waits_any_more(job, outcome)
        return job

    @precondition(lambda self: self.model.is_front_end_there and self.model.at(Place.CLAIMED))
    @rule()
    def the_front_end_goes(self) -> None:
        self.loop.run(self.replies.delete())
        self.model.front_end_goes()

    @precondition(lambda self: not self.model.is_front_end_there)
    @rule()
    def the_front_end_is_back(self) -> None:
        self.loop.run(self.replies.open())
        self.streams_opened += 1
        self.model.is_front_end_there = True

    @precondition(lambda self: self.model.unread)  # it would wait for one
    @rule()
    def replies_are_read(self) -> None:
        read = [reply.job_id for reply in self.loop.run(self.replies.read())]
        assert read == self.model.unread
        self.model.unread.clear()

    # --- What workers do ------------------------------------------------------

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
        lost = {
            claim.entry_id
            for claim in worker.hand
            if not self.model.renew(self.job_of(claim), worker.name)
        }
        assert worker.queue.renew(worker.hand) == lost
        worker.hand = [claim for claim in worker.hand if claim.entry_id not in lost]

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

    # --- What happens to Redis ------------------------------------------------

    @precondition(lambda self: self.model.in_flight())
    @rule()
    def redis_forgets_the_scripts(self) -> None:
        self.redis.script_flush()

    @precondition(lambda self: self.model.at(Place.CLAIMED))
    @rule(job=jobs)
    def the_key_of_a_job_ends(self, job: ModelJob) -> None:
        if job.key is Key.ENTRY:
            self.redis.delete(keys.job(MODEL, job.id))
            job.key = Key.ENDED

    @precondition(lambda self: self.model.dead)
    @rule()
    def an_operator_deletes_the_dead_letters(self) -> None:
        self.redis.delete(keys.dead(MODEL))
        self.model.dead.clear()

    # --- What is always true --------------------------------------------------

    def look(self) -> DispatchState:
        return DispatchState.read(self.redis, MODEL, SERVER)

    @invariant()
    def redis_is_as_the_model_says(self) -> None:
        state = self.look()
        self.assert_the_books_balance(state)
        self.assert_each_job_is_in_its_place_and_has_one_owner(state)
        self.assert_replies_are_published_once_and_never_after_a_cancel(state)
        self.assert_dead_letters_are_kept_within_their_bound(state)
        self.assert_missing_jobs_are_told_from_those_in_flight()

    def assert_the_books_balance(self, state: DispatchState) -> None:
        ended = Counter(state.totals)
        accepted = ended.pop("accepted", 0)
        assert accepted == ended.total() + sum(map(len, state.entries.values()))
        assert state.totals == self.model.totals
        calls_bytes = sum(sum(state.sizes[priority]) for priority in CALL_PRIORITIES)
        assert calls_bytes == self.model.load_bytes()
        assert state.load.get("bytes", 0) == calls_bytes

    def assert_each_job_is_in_its_place_and_has_one_owner(self, state: DispatchState) -> None:
        for priority in Priority:
            expected = sorted(self.model.in_flight(priority), key=lambda job: job.admission)
            assert state.entries[priority] == [job.id for job in expected]
        assert state.pending == {
            job.entry_id: (job.owner, job.deliveries) for job in self.model.at(Place.CLAIMED)
        }

    def assert_replies_are_published_once_and_never_after_a_cancel(
        self, state: DispatchState
    ) -> None:
        for entry_id, job_id in state.replies.items():
            # A stream that is made anew may begin with the ids of its predecessor.
            self.published[self.streams_opened, entry_id] = job_id
        published = sorted(self.published.values())
        assert len(set(published)) == len(published)
        assert published == sorted(self.model.published)

    def assert_dead_letters_are_kept_within_their_bound(self, state: DispatchState) -> None:
        letters = [(job.id, job.size_bytes, job.submission.image) for job in self.model.dead]
        assert state.dead == letters
        if letters:
            assert state.load["dead_bytes"] == sum(job.size_bytes for job in self.model.dead)

    def assert_missing_jobs_are_told_from_those_in_flight(self) -> None:
        known = {job.id: job for job in self.model.jobs}
        missing = set(self.loop.run(self.store.missing(MODEL, list(known))))
        found = {job.id for job in known.values() if job.key is Key.ENTRY and job.is_in_flight}
        # One cancelled while it waited is not told from those behind it; nobody asks for it.
        unclear = {job.id for job in known.values() if job.is_retired and not job.was_claimed}
        assert not missing & found
        assert missing | found | unclear == known.keys()

    # --- The end --------------------------------------------------------------

    def drain(self) -> None:
        """Let one worker end all that is left, as if the others were gone."""
        for slot in SLOTS:
            self.a_worker_crashes(slot)
        for job in self.model.at(Place.CLAIMED):
            if job.owner != keys.RELEASED:
                self.set_idle(job, LEASE_MS + 1)
                job.is_lease_over = True
        last = self.workers[SLOTS[0]]
        while claims := [
            *self.claim(last, LIMITS.jobs),
            *self.reclaim(last, LIMITS.jobs, take_suspect=True),
        ]:
            for claim in claims:
                self.end(claim, Outcome.COMPLETED)

    def assert_nothing_is_left(self) -> None:
        self.redis_is_as_the_model_says()
        state = self.look()
        assert not any(state.entries.values())
        assert not state.pending
        assert state.load.get("bytes", 0) == 0
        assert state.totals.get("accepted", 0) == sum(job.is_retired for job in self.model.jobs)
        assert list(keys_against_their_page(self.redis)) == []


# Shortening an example that fails takes longer than the usual limit allows.
@pytest.mark.timeout(400)
def test_any_order_of_operations_keeps_the_promises(redis_server: RedisServer) -> None:
    class OnThisServer(DispatchMachine):
        def __init__(self) -> None:
            super().__init__(redis_server)

    run_state_machine_as_test(
        OnThisServer,
        settings=settings(
            max_examples=120,
            stateful_step_count=40,
            deadline=None,
            derandomize=False,
            print_blob=True,
            # One at a time: each is shortened by running it some hundred times.
            report_multiple_bugs=False,
        ),
    )
