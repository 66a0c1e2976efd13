"""What operators watch, of a real system: several front-ends, workers that are killed."""

import asyncio
from collections.abc import Callable

import grpc
import pytest

from dispatch import keys
from prediction.v1 import admin_pb2 as pb
from prediction.v1.admin_pb2_grpc import AdminServiceStub
from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from tests.stack import Stack, request_for
from tests.worker_process import MODEL

LIMIT_S = 30


class Watch:
    """One who watches."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = AdminServiceStub(channel).WatchStats(pb.WatchStatsRequest())

    async def until(
        self, condition: Callable[[pb.WatchStatsResponse, pb.ModelStats], bool]
    ) -> pb.ModelStats:
        """Return what is shown of the model once that is so."""
        while True:
            shown = await self.look()
            for model in shown.models:
                if model.model == MODEL and condition(shown, model):
                    return model

    async def look(self) -> pb.WatchStatsResponse:
        """Return what is shown next."""
        async with asyncio.timeout(LIMIT_S):
            response = await self._call.read()
        assert isinstance(response, pb.WatchStatsResponse)
        return response


async def test_the_whole_system_is_seen_from_any_front_end(stack: Stack) -> None:
    workers = [stack.start_worker(inference_ms=20) for _ in range(2)]
    stack.start_server()
    there = stack.channel()
    watched = stack.start_server()
    await stack.until_ready(workers=2)
    here = Watch(stack.channel())
    await here.until(lambda shown, model: shown.servers == 2 and len(model.workers) == 2)
    elsewhere = PredictionServiceStub(there)
    await asyncio.gather(*(elsewhere.Predict(request_for((n, 0, 0))) for n in range(40)))
    bad = request_for((0, 0, 0))
    bad.image = b"no image"
    with pytest.raises(grpc.aio.AioRpcError):
        await elsewhere.Predict(bad)

    # The call that fails is the last to be told of.
    seen = await here.until(lambda _, model: bool(model.failures))
    assert [(each.reason, each.count) for each in seen.failures] == [
        ("IMAGE_FORMAT_UNSUPPORTED", 1)
    ]
    assert seen.latency.images == 40
    # 20 ms is what the model takes; a bucket is 19 % wide.
    assert 17_000 < seen.latency.p50.ToMicroseconds() <= seen.latency.p99.ToMicroseconds()
    seen = await here.until(lambda _, model: sum(w.images_per_second for w in model.workers) > 0)
    assert seen.images_per_second > 0
    assert all(0 <= worker.busy <= 1 for worker in seen.workers)
    assert max(worker.mean_batch_size for worker in seen.workers) >= 1

    workers[0].kill()
    await here.until(lambda _, model: len(model.workers) == 1)
    watched.terminate()
    with stack.redis.client() as client:
        assert client.scard(keys.FRONT_ENDS) == 1


async def test_what_waits_is_shown_with_its_age(stack: Stack) -> None:
    worker = stack.start_worker(inference_ms=20)
    stack.start_server()
    await stack.until_ready()
    worker.kill()
    stub = stack.stub()
    calls = [
        asyncio.ensure_future(stub.Predict(request_for((n, 0, 0)), timeout=LIMIT_S))
        for n in range(3)
    ]
    watch = Watch(stack.channel())
    seen = await watch.until(lambda _, model: model.queues[1].oldest_age.seconds >= 1)
    assert (seen.queues[1].name, seen.queues[1].waiting, seen.queues[1].claimed) == ("normal", 3, 0)
    assert seen.queued_bytes > 3 * len(request_for((0, 0, 0)).image)
    stack.start_worker()
    await asyncio.gather(*calls)
    await watch.until(lambda _, model: model.queues[1].waiting == 0)
    stack.assert_nothing_is_left()


async def test_a_watch_outlives_redis(stack: Stack) -> None:
    stack.start_worker()
    stack.start_server()
    await stack.until_ready()
    watch = Watch(stack.channel())
    await watch.until(lambda _, model: len(model.workers) == 1)
    stack.redis.kill()
    # What was seen last is repeated.
    last_ms = max([(await watch.look()).time.ToMilliseconds() for _ in range(3)])
    stack.redis.start()
    await watch.until(lambda shown, _: shown.time.ToMilliseconds() > last_ms)
