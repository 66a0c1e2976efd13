"""What callers and operators may do, in any order, on a real server and in the model."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    multiple,
    precondition,
    rule,
)

from despacho.job.v1.job_pb2 import Job, ModelCard, WorkerCard
from dispatch import keys
from dispatch.errors import DespachoError, QueueFull
from dispatch.job_store import Cancel, Enqueue, JobStore, Operation, QueueLimits, size_bytes
from dispatch.jobs import CALL_PRIORITIES, Claim, Outcome, Priority, Submission
from dispatch.work_queue import LEASE_S, WorkQueue
from tests.dispatch_model import DispatchModel, Key, ModelJob, Place
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


class Worker:
    """A worker as dispatch sees it: connections, and the claims it believes it has."""

    def __init__(self, server: RedisServer, name: str) -> None:
        self.name = name
        self.hand: list[Claim] = []
        self.queue = WorkQueue(server.url, MODEL, name)
        self.queue.open()
        # Connected for longer than a lease, so that it may judge others.
        self.queue._line._reachable_since -= LEASE_S + 1
        self.queue.announce(WorkerCard(worker=name), ModelCard(name=MODEL), has_changed=True)


def limit_of(refusal: DespachoError | None) -> str:
    """Return the limit that refused an operation, or an empty string."""
    if refusal is None:
        return ""
    assert isinstance(refusal, QueueFull)
    return refusal.subject.rpartition("/")[2]


class CallSteps(RuleBasedStateMachine):
    """The real store side by side with the model."""

    jobs: Bundle[ModelJob] = Bundle("jobs")

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

    async def close(self) -> None:
        """Close the connections of the front-end."""
        await self.replies.aclose()
        await self.store.__aexit__(None, None, None)

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
        return multiple(*self.arrive_together(each))

    def arrive_together(self, each: Sequence[tuple[Priority, int]]) -> list[ModelJob]:
        """Send jobs as one batch, in which the first one is sent once more."""
        new = [self.new_job(priority, image_bytes) for priority, image_bytes in each]
        sent = [*new, new[0]]
        refusals = self.loop.run(self.store.send([Enqueue(job.submission) for job in sent]))
        for job, refusal in zip(sent, refusals, strict=True):
            assert limit_of(refusal) == self.model.enqueue(job)
            self.note_entry_id(job)
        return new

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

    @precondition(lambda self: self.model.at(Place.CLAIMED))
    @rule()
    def all_calls_are_long_overdue(self) -> None:
        swept = self.loop.run(self.store.end_overdue(MODEL, overdue_s=-2 * TIMEOUT_S))
        assert swept == self.model.sweep_calls()

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
