"""What a waiting call takes in Redis beside its image."""

import socket
import time

from despacho.job.v1.job_pb2 import Job
from dispatch import keys
from dispatch.job_store import JobStore
from dispatch.jobs import Priority, Submission
from supervision.process_name import process_name
from tests.dispatch_steps import enqueue
from tests.redis_server import RedisServer

MOST_BYTES = 400
MODEL = "efficientnet-lite0"
IMAGE = bytes(10_240)


async def test_our_own_fields_of_a_job_are_small_and_counted_in_full(
    store: JobStore, redis_server: RedisServer
) -> None:
    name = process_name()
    job = Job(
        id="a" * 32,
        request_id="b" * 32,
        model=MODEL,
        # As long as in a container, whose name has 12 characters.
        reply_to=name.replace(socket.gethostname(), "c" * 12, 1),
        top_k=1000,
        include_scores=True,
        traceparent=f"00-{'d' * 32}-{'e' * 16}-01",
    )
    submission = Submission(job, IMAGE, Priority.NORMAL, time.monotonic() + 300)
    assert await enqueue(store, submission) == [None]
    with redis_server.client() as client:
        [(entry_id, fields)] = client.xrange(keys.jobs(MODEL, Priority.NORMAL))
        key = keys.job(MODEL, job.id).encode()
        place = client.get(key)
        counted = int(client.hget(keys.load(MODEL), "bytes"))
    own_bytes = sum(len(part) for part in (entry_id, key, place, *fields, *fields.values()))
    own_bytes -= len(IMAGE)
    assert own_bytes <= MOST_BYTES, own_bytes
    assert own_bytes <= counted - len(IMAGE)
