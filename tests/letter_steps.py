"""Steps that tests of dead letters take."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

from despacho.job.v1.job_pb2 import DeadLetter, Job, ModelCard, Reply, WorkerCard
from dispatch.errors import JobPoisoned
from dispatch.job_store import Enqueue, JobStore
from dispatch.jobs import Completion, Priority, Room, Submission
from dispatch.work_queue import WorkQueue
from tests.worker_process import MODEL

NO_LIMIT = 1 << 30
MAX_IMAGE_BYTES = 16 * 1024 * 1024


@asynccontextmanager
async def running(part: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(part.run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def enqueue(jobs: JobStore, image: bytes) -> Job:
    job = Job(id=uuid4().hex, request_id="call", model=MODEL, reply_to="server-1", top_k=3)
    submission = Submission(job, image, Priority.NORMAL, time.monotonic() + 30)
    assert await jobs.send([Enqueue(submission)]) == [None]
    return job


def set_aside(queue: WorkQueue, *, max_bytes: int = NO_LIMIT) -> list[Completion]:
    """Quarantine all that waits."""
    outcomes = []
    for claim in queue.claim(tuple(Priority), Room(2000, NO_LIMIT), block=False):
        letter = DeadLetter(job=claim.job, deliveries=2, reason=JobPoisoned.reason)
        outcomes.append(queue.quarantine(claim, Reply(job_id=claim.job.id), letter, max_bytes))
    return outcomes


async def set_aside_images(jobs: JobStore, queue: WorkQueue, *images: bytes) -> None:
    for image in images:
        await enqueue(jobs, image)
        set_aside(queue)


def announce(queue: WorkQueue) -> None:
    card = WorkerCard(worker=queue.worker, model_version="1", ready=True)
    queue.announce(card, ModelCard(name=MODEL), has_changed=False)
