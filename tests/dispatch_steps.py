"""Steps that tests of `dispatch/` take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from despacho.job.v1.job_pb2 import Answer, Job, Reply
from dispatch import keys
from dispatch.errors import DespachoError
from dispatch.job_store import Enqueue, JobStore
from dispatch.jobs import (
    CALL_PRIORITIES,
    Claim,
    Outcome,
    Priority,
    Room,
    Submission,
)
from dispatch.work_queue import WorkQueue
from tests.redis_server import RedisServer

MODEL = "m"

NOWHERE = ("127.0.0.1", 1)
"""A primary that nobody answers for."""


def submission(
    image: bytes = b"image", *, priority: Priority = Priority.NORMAL, timeout_s: float = 30
) -> Submission:
    job = Job(id=uuid4().hex, model=MODEL, reply_to="server-1", top_k=1)
    return Submission(job, image, priority, time.monotonic() + timeout_s)


def answer(claim: Claim) -> tuple[Claim, Reply, Outcome]:
    reply = Reply(job_id=claim.job.id, attempt=claim.attempt, answer=Answer(batch_size=1))
    return claim, reply, Outcome.COMPLETED


def take(queue: WorkQueue, room: int = 8) -> list[Claim]:
    return queue.claim(CALL_PRIORITIES, Room(room, 1 << 30), block=False)


@contextmanager
def queue_for(server: RedisServer, worker: str) -> Iterator[WorkQueue]:
    queue = WorkQueue(server.url, MODEL, worker)
    queue.open()
    yield queue
    queue.close()


async def enqueue(store: JobStore, *submissions: Submission) -> list[DespachoError | None]:
    return await store.send([Enqueue(each) for each in submissions])


def totals(server: RedisServer) -> dict[str, int]:
    with server.client() as client:
        found = client.hgetall(keys.totals(MODEL))
    return {name.decode(): int(count) for name, count in found.items()}


def assert_drained(server: RedisServer) -> None:
    with server.client() as client:
        assert [client.xlen(stream) for stream in keys.call_streams(MODEL)] == [0, 0, 0]
        assert [client.xpending(s, keys.GROUP)["pending"] for s in keys.call_streams(MODEL)] == [
            *(0, 0, 0)
        ]
        assert int(client.hget(keys.load(MODEL), "bytes") or 0) == 0
    counts = totals(server)
    assert counts.pop("accepted") == sum(counts.values())
