"""What operators may rely on in `AdminService.WatchStats`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from despacho.job.v1.job_pb2 import FrontEndCard, WorkerCard
from dispatch.jobs import Priority
from dispatch.stats_store import ModelStats, QueueLook
from prediction.v1 import admin_pb2 as pb
from prediction.v1.admin_pb2_grpc import AdminServiceStub
from server.samples import Sample
from server.tally import Tally
from tests.front_end import LIMIT_S, FrontEnd, front_end
from tests.stack import details_of, reason_of

NOTHING = QueueLook(entries=0, claimed=0, oldest_ms=0)


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with front_end() as running:
        yield running


def stats(*, ended: int = 0, **workers: WorkerCard) -> ModelStats:
    queues = dict.fromkeys(Priority, NOTHING) | {Priority.LOW: QueueLook(5, 2, 1500)}
    return ModelStats(queues=queues, size_bytes=77, ended=ended, workers=workers)


def card(server: str, *answered_s: float, failed: int = 0) -> FrontEndCard:
    tally, written = Tally(), FrontEndCard(server=server)
    for seconds in answered_s:
        tally.answered("m", seconds)
    for _ in range(failed):
        tally.failed("m", "IMAGE_UNDECODABLE")
        tally.failed("", "CREDENTIALS_MISSING")
    tally.write_to(written, ["m"])
    return written


def sample(at_s: float, model: ModelStats, *cards: FrontEndCard) -> Sample:
    return Sample(at_s, 1_700_000_000 + at_s, {"m": model}, {each.server: each for each in cards})


async def first(front: FrontEnd, request: pb.WatchStatsRequest) -> pb.WatchStatsResponse:
    call = AdminServiceStub(front.channel).WatchStats(request, timeout=LIMIT_S)
    async for response in call:
        call.cancel()
        return response
    raise AssertionError("nothing came")


async def test_the_whole_system_is_shown(front: FrontEnd) -> None:
    front.stats.seen = [
        sample(
            0,
            stats(ended=100, w1=WorkerCard(worker="w1", images=10, batches=5)),
            card("a", 0.1),
            card("b"),
        ),
        sample(
            4,
            stats(
                ended=140,
                w1=WorkerCard(
                    worker="w1",
                    model_version="7",
                    ready=True,
                    in_hand=3,
                    images=50,
                    batches=10,
                    inference_us=2_000_000,
                ),
            ),
            card("a", 0.1, 0.02, failed=2),
            card("b", 0.02, 0.3),
        ),
    ]
    shown = await first(front, pb.WatchStatsRequest())
    assert shown.time.ToMilliseconds() == 1_700_000_004_000
    assert shown.window.ToMilliseconds() == 4000
    assert shown.servers == 2
    assert list(shown.failures) == [pb.FailureCount(reason="CREDENTIALS_MISSING", count=2)]
    (model,) = shown.models
    assert model.model == "m"
    assert [queue.name for queue in model.queues] == ["high", "normal", "low", "operation"]
    assert (model.queues[2].waiting, model.queues[2].claimed) == (3, 2)
    assert model.queues[2].oldest_age.ToMilliseconds() == 1500
    assert model.queued_bytes == 77
    assert model.images_per_second == 10
    assert list(model.failures) == [pb.FailureCount(reason="IMAGE_UNDECODABLE", count=2)]
    assert model.latency.images == 3  # what was before the window is not counted
    assert model.latency.p50.ToTimedelta().total_seconds() == pytest.approx(0.02, rel=0.1)
    assert model.latency.p99.ToTimedelta().total_seconds() == pytest.approx(0.3, rel=0.1)
    (worker,) = model.workers
    assert (worker.worker, worker.model_version, worker.ready) == ("w1", "7", True)
    assert worker.in_hand == 3
    assert worker.images_per_second == 10
    assert worker.mean_batch_size == 8
    assert worker.busy == 0.5


async def test_counts_that_begin_again_take_nothing_off(front: FrontEnd) -> None:
    front.stats.seen = [
        sample(0, stats(), card("a", 0.1, 0.1, 0.1, failed=3)),
        sample(1, stats(), card("a", 0.1, 0.02, failed=1)),
        sample(2, stats(), card("a", 0.1, 0.02, 0.02, failed=2)),
    ]
    (model,) = (await first(front, pb.WatchStatsRequest())).models
    assert model.latency.images == 2
    assert list(model.failures) == [pb.FailureCount(reason="IMAGE_UNDECODABLE", count=1)]


async def test_nothing_is_made_up_of_one_look(front: FrontEnd) -> None:
    front.stats.seen = [sample(0, stats(ended=100), card("a", 0.1, failed=3))]
    (model,) = (await first(front, pb.WatchStatsRequest())).models
    assert model.images_per_second == 0
    assert not model.latency.HasField("p50")
    assert not model.failures


async def test_what_a_front_end_did_before_it_was_seen_is_not_shown(front: FrontEnd) -> None:
    front.stats.seen = [
        sample(0, stats()),
        sample(1, stats(), card("late", 0.1, failed=1)),
        sample(2, stats(), card("late", 0.1, 0.1, failed=1)),
    ]
    (model,) = (await first(front, pb.WatchStatsRequest())).models
    assert model.latency.images == 1
    assert not model.failures


async def test_counts_that_begin_again_do_not_go_below_zero(front: FrontEnd) -> None:
    front.stats.seen = [sample(0, stats(ended=100)), sample(1, stats(ended=3))]
    (model,) = (await first(front, pb.WatchStatsRequest())).models
    assert model.images_per_second == 0


async def test_one_model_can_be_watched(front: FrontEnd) -> None:
    front.stats.seen = [Sample(0, 0, {"m": stats(), "n": stats()}, {})]
    shown = await first(front, pb.WatchStatsRequest(model="n"))
    assert [model.model for model in shown.models] == ["n"]


async def test_it_is_shown_again_after_a_period(front: FrontEnd) -> None:
    front.stats.seen = [sample(0, stats())]
    call = AdminServiceStub(front.channel).WatchStats(pb.WatchStatsRequest(), timeout=LIMIT_S)
    times = []
    async for response in call:
        times.append(response.time.ToMilliseconds())
        front.stats.seen = [sample(len(times), stats())]
        if len(times) == 2:
            break
    call.cancel()
    assert times == [1_700_000_000_000, 1_700_000_001_000]


@pytest.mark.parametrize(
    "period", [Duration(), Duration(seconds=-1), Duration(nanos=999_999_999), Duration(seconds=61)]
)
async def test_a_period_out_of_range_is_refused(front: FrontEnd, period: Duration) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await first(front, pb.WatchStatsRequest(period=period))
    assert reason_of(caught.value) == "INVALID_ARGUMENT"
    violation = details_of(caught.value)["BadRequest"].field_violations[0]
    assert violation.field == "period"


async def test_nothing_to_show_is_an_error(front: FrontEnd) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await first(front, pb.WatchStatsRequest())
    assert reason_of(caught.value) == "BROKER_UNAVAILABLE"


async def test_nobody_looks_any_more_when_the_caller_has_gone(front: FrontEnd) -> None:
    front.stats.seen = [sample(0, stats())]
    await first(front, pb.WatchStatsRequest())
    await asyncio.wait_for(front.stats.left.wait(), LIMIT_S)


async def test_a_watch_ends_when_the_server_stops() -> None:
    async with AsyncExitStack() as stack:
        async with front_end() as front:
            front.stats.seen = [sample(0, stats())]
            # Its own, which outlives the server.
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(front.address))
            call = AdminServiceStub(channel).WatchStats(pb.WatchStatsRequest(), timeout=LIMIT_S)
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert reason_of(caught.value) == "DRAINING"


async def test_names_that_callers_make_up_are_not_kept() -> None:
    tally, written = Tally(), FrontEndCard(server="a")
    for number in range(3):
        tally.failed(f"made-up-{number}", "OPERATION_NOT_FOUND")
    tally.write_to(written, ["m"])
    (only,) = written.models
    assert (only.model, dict(only.failures)) == ("", {"OPERATION_NOT_FOUND": 3})
