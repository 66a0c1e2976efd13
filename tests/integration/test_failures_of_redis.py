"""What a caller sees when Redis is killed, stalled or demoted, or forgets.

Everything is real: a Valkey, a front-end process, a worker process. Only the model is small.
"""

import asyncio
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path

import grpc
import pytest
import redis

from prediction.v1 import prediction_pb2, prediction_pb2_grpc
from tests.chaos.proxy import Proxy
from tests.redis_server import RedisServer
from tests.stack import (
    RESUME,
    STALL,
    Stack,
    colour_of,
    colours,
    image_of,
    reason_of,
    refusal,
    request_for,
)


async def test_a_killed_redis_refuses_new_calls_and_loses_no_waiting_one(stack: Stack) -> None:
    server = stack.start_server()
    worker = stack.start_worker()
    await stack.until_ready()
    worker.send(STALL)
    wanted = colours(30)
    waiting = asyncio.create_task(stack.predict_all(wanted))
    await stack.until(lambda: stack.entries() == 30, 10)
    stack.redis.kill()
    worker.send(RESUME)
    channel = stack.channel()
    await channel.channel_ready()
    stub = prediction_pb2_grpc.PredictionServiceStub(channel)
    for colour in colours(5):
        begun = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Predict(request_for(colour), timeout=10)
        assert time.monotonic() - begun < 1
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert reason_of(caught.value) == "BROKER_UNAVAILABLE"
    stack.redis.start()
    assert [colour_of(response) for response in await waiting] == wanted
    await stack.until_ready()
    (response,) = await stack.predict_all([(7, 8, 9)])
    assert colour_of(response) == (7, 8, 9)
    assert stack.totals() == {"accepted": 31, "completed": 31}
    stack.assert_nothing_is_left()
    # Tried again and again, and told once.
    await asyncio.to_thread(server.wait_for_line, "broker available again")
    assert server.log.count("broker unavailable") == 1


async def test_a_stalled_redis_refuses_new_calls_within_a_second(stack: Stack) -> None:
    stack.start_server()
    stack.start_worker()
    await stack.until_ready()
    stub = stack.stub()
    stack.redis.pause()
    # Sent before anybody could know better, so its outcome stays unknown to its end.
    await refusal(stub.Predict(request_for((1, 2, 3)), timeout=0.5))
    for _ in range(3):
        begun = time.monotonic()
        error = await refusal(stub.Predict(request_for((1, 2, 3)), timeout=10))
        assert reason_of(error) == "BROKER_UNAVAILABLE"
        assert time.monotonic() - begun < 1
    stack.redis.resume()
    await stack.until_ready()

    async def is_answered() -> bool:
        try:
            response = await stub.Predict(request_for((7, 8, 9)), timeout=10)
        except grpc.aio.AioRpcError as error:
            # What the front-end knows of the worker may be older than the stall.
            if reason_of(error) != "BROKER_UNAVAILABLE":
                raise
            return False
        return colour_of(response) == (7, 8, 9)

    await stack.until(is_answered, 20)


HASTY = """
import runpy
from server import lost_jobs

lost_jobs.PERIOD_S, lost_jobs.ASK_AFTER_S = 0.5, 1.0
runpy.run_module("server", run_name="__main__", alter_sys=True)
"""


async def test_replies_that_redis_lost_are_computed_again(stack: Stack) -> None:
    stack.start_server(["-c", HASTY])
    worker = stack.start_worker()
    await stack.until_ready()
    worker.send(STALL)
    waiting = asyncio.create_task(stack.predict_all(colours(3)))
    await stack.until(lambda: stack.entries() == 3, 10)
    with stack.redis.client() as client:
        client.flushall()  # as after a failover to a replica that knew nothing
    worker.send(RESUME)
    assert [colour_of(response) for response in await waiting] == colours(3)
    # The model is known as before, to new calls as well.
    await stack.until_ready()
    (response,) = await stack.predict_all([(7, 8, 9)])
    assert colour_of(response) == (7, 8, 9)


async def test_a_redis_that_comes_back_empty_takes_submissions(stack: Stack) -> None:
    stack.start_server()
    stack.start_worker()
    await stack.until_ready()
    stub = stack.stub()
    for colour in colours(3):
        with stack.redis.client() as client:
            client.flushall()
        submission = prediction_pb2.SubmitPredictionRequest(image=image_of(colour))
        await stub.SubmitPrediction(submission, timeout=10)
    await stack.until(lambda: stack.totals() == {"accepted": 1, "completed": 1}, 10)


async def test_a_cancel_is_not_forgotten_while_redis_takes_no_writes(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker(batch=1)
    await stack.until_ready()
    stub = stack.stub()
    worker.send(STALL)
    calls = [stub.Predict(request_for(colour), timeout=60) for colour in colours(20)]
    await stack.until(lambda: stack.entries() == 20, 10)
    with stack.redis.client() as client:
        client.config_set("min-replicas-to-write", 1)
        for call in calls[10:]:
            call.cancel()
        # The front-end hears of it a moment later.
        await stack.until(lambda: refused_count(client) >= 10, 10)
        client.config_set("min-replicas-to-write", 0)
    await stack.until(lambda: stack.totals().get("cancelled") == 10, 10)
    worker.send(RESUME)
    answers = await asyncio.gather(*calls[:10])
    assert [colour_of(response) for response in answers] == colours(10)
    assert stack.totals() == {"accepted": 20, "completed": 10, "cancelled": 10}


def refused_count(client: redis.Redis) -> int:
    errors = client.info("errorstats")
    return int(errors.get("errorstat_NOREPLICAS", {"count": 0})["count"])


@pytest.fixture
def successor(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "successor"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()


async def test_a_demoted_redis_is_left_though_it_breaks_no_connection(
    stack: Stack, successor: RedisServer
) -> None:
    with Proxy(stack.redis.port) as proxy, stack.redis.client() as old, successor.client() as new:
        stack.redis.url = proxy.url
        stack.start_server()
        stack.start_worker()
        await stack.until_ready()
        stub = stack.stub()
        old.config_set("repl-diskless-sync-delay", 0)
        new.replicaof("127.0.0.1", stack.redis.port)
        await stack.until(lambda: new.info("replication")["master_link_status"] == "up", 20)
        proxy.switch(successor.port)
        new.replicaof("NO", "ONE")
        old.replicaof("127.0.0.1", successor.port)

        async def is_served(call: Awaitable[object]) -> bool:
            try:
                await call
            except grpc.aio.AioRpcError:
                return False
            return True

        await stack.until(lambda: is_served(stub.Predict(request_for((1, 2, 3)), timeout=5)), 10)
        synced = prediction_pb2.SubmitPredictionRequest(
            image=image_of((1, 2, 3)), durability=prediction_pb2.DURABILITY_SYNCED
        )
        await stack.until(lambda: is_served(stub.SubmitPrediction(synced, timeout=10)), 15)
