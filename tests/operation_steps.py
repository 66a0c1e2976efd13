"""Steps that tests of `operation_store.py` take."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from despacho.job.v1.job_pb2 import Answer, Job, ModelCard, Reply
from dispatch import keys
from dispatch.jobs import Claim, Outcome, Priority, Room
from dispatch.operation_store import OperationStore
from dispatch.operations import (
    NewOperation,
    Operation,
    OperationLimits,
)
from dispatch.work_queue import WorkQueue
from tests.redis_server import RedisServer

MODEL = "m"
LIMITS = OperationLimits(jobs=5, size_bytes=100_000, kept=8, deadline_s=60, ttl_s=60)
NEWEST = 1 << 62


@asynccontextmanager
async def opened(
    server: RedisServer, limits: OperationLimits = LIMITS
) -> AsyncIterator[OperationStore]:
    with server.client() as client:
        client.set(keys.card(MODEL), ModelCard(name=MODEL).SerializeToString())
    async with OperationStore(server.url, limits) as store:
        running = asyncio.create_task(store.run())
        yield store
        running.cancel()


def new(
    image: bytes = b"image", *, request_id: str = "", caller: str = "me", top_k: int = 5
) -> NewOperation:
    job = Job(model=MODEL, top_k=top_k)
    return NewOperation.of(job, image, caller=caller, request_id=request_id or str(uuid4()))


async def submit(store: OperationStore, operation: NewOperation) -> Operation:
    return await store.submit(operation, is_synced=False)


def take(queue: WorkQueue, room: int = 8) -> list[Claim]:
    return queue.claim(tuple(Priority), Room(room, 1 << 30), block=False)


def answer(claim: Claim) -> tuple[Claim, Reply, Outcome]:
    reply = Reply(job_id=claim.job.id, attempt=claim.attempt, answer=Answer(batch_size=1))
    return claim, reply, Outcome.COMPLETED


def counts(server: RedisServer) -> dict[str, int]:
    with server.client() as client:
        return {name.decode(): int(n) for name, n in client.hgetall(keys.totals(MODEL)).items()}


def assert_balanced(server: RedisServer) -> None:
    totals = counts(server)
    with server.client() as client:
        waiting = sum(client.xlen(stream) for stream in keys.job_streams(MODEL))
        held = int(client.hget(keys.load(MODEL), "operation_bytes") or 0)
        assert (held > 0) is (waiting > 0)
    assert totals.pop("accepted") == sum(totals.values()) + waiting
