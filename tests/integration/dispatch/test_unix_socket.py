"""Redis on the same machine, behind a Unix socket."""

import tempfile
from pathlib import Path

from dispatch.job_store import JobStore, QueueLimits
from dispatch.jobs import Completion
from dispatch.work_queue import WorkQueue
from tests.dispatch_steps import MODEL, answer, enqueue, submission, take
from tests.redis_server import RedisServer


async def test_front_ends_and_workers_find_it() -> None:
    # Not pytest's own folder: the path of a socket may have about a hundred characters.
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "redis.sock"
        redis = RedisServer(Path(name), unix_socket=path)
        redis.start()
        try:
            await carries_a_job(f"unix://{path}")
        finally:
            redis.stop()


async def carries_a_job(url: str) -> None:
    queue = WorkQueue(url, MODEL, "worker-1")
    queue.open()
    async with JobStore(url, "server-1", QueueLimits(10, 1_000_000)) as store:
        stream = store.replies(MODEL)
        await stream.open()
        assert await enqueue(store, submission()) == [None]
        (claim,) = take(queue)
        assert queue.complete([answer(claim)]) == [Completion.PUBLISHED]
        (reply,) = await stream.read()
        assert reply.job_id == claim.job.id
        await stream.aclose()
    queue.close()
