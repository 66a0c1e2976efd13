"""Register, send, wait: in that order, whatever happens meanwhile."""

import asyncio
import gc
from contextlib import suppress

import pytest

from despacho.job.v1.job_pb2 import Failure, Job, Reply
from dispatch import errors
from dispatch.job_store import Cancel, Enqueue
from dispatch.jobs import Outcome, Priority
from server.ports import ModelView
from tests.relay_house import FakeFleet, House


async def test_a_reply_that_beats_enqueue_is_not_lost() -> None:
    async with House() as house:
        house.store.on_enqueue = house.answer
        assert (await house.predict()).answer.batch_size == 1


async def test_the_deadline_answers_early_and_retires_the_job() -> None:
    async with House() as house:
        with pytest.raises(errors.ExpiredInQueue):
            await house.predict(timeout_s=0.05)
        await house.store.until_sent(2)
        enqueue, cancel = house.store.sent
        assert isinstance(enqueue, Enqueue)
        assert isinstance(cancel, Cancel)
        assert cancel.job_id == enqueue.submission.job.id
        assert cancel.outcome is Outcome.EXPIRED


async def test_a_caller_that_leaves_retires_the_job() -> None:
    async with House() as house:
        call = asyncio.create_task(house.predict())
        await house.store.until_sent(1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await house.store.until_sent(2)
        assert house.store.sent[1].outcome is Outcome.CANCELLED  # type: ignore[union-attr]
        assert len(house.pending) == 0


async def test_a_refusal_says_when_to_come_back() -> None:
    async with House() as house:
        house.store.refusal = errors.QueueFull("jobs", "full")
        with pytest.raises(errors.QueueFull) as caught:
            await house.predict()
        # A tenth of 100 jobs, at 10 a second.
        assert caught.value.retry_after_s == pytest.approx(1.0)


async def test_a_refusal_stays_one_though_the_model_is_forgotten_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def get(_: FakeFleet, name: str) -> ModelView:
        raise errors.ModelNotFound(name)

    async with House() as house:
        monkeypatch.setattr(FakeFleet, "get", get)
        house.store.refusal = errors.QueueFull("model:m/jobs", "full", retry_after_s=3)
        with pytest.raises(errors.QueueFull) as caught:
            await house.predict()
        assert caught.value.retry_after_s == 3


async def test_jobs_of_many_callers_are_sent_together() -> None:
    async with House() as house:
        house.store.on_enqueue = house.answer
        await asyncio.gather(*(house.predict() for _ in range(50)))
        assert (len(house.store.sent), house.store.sends) == (50, 1)


async def test_large_images_are_not_sent_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.writer.FLUSH_BYTES", 10)
    async with House() as house:
        house.store.on_enqueue = house.answer
        await asyncio.gather(*(house.predict() for _ in range(5)))  # of five bytes each
        assert (len(house.store.sent), house.store.sends) == (5, 3)


async def test_a_job_whose_caller_has_left_is_not_sent() -> None:
    async with House() as house:
        call = asyncio.create_task(house.predict())
        await asyncio.sleep(0)  # it is handed to the writer
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await house.store.until_sent(1)
        assert [type(each) for each in house.store.sent] == [Cancel]


async def test_a_full_queue_is_not_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.relay.STAYS_FULL_S", 3600)
    monkeypatch.setattr(FakeFleet, "drain_per_s", 1e-9)
    async with House() as house:
        house.store.refusal = errors.QueueFull("model:m/jobs", "full")
        for _ in range(3):
            with pytest.raises(errors.QueueFull, match="full") as caught:
                await house.predict()
            assert caught.value.subject == "model:m/jobs"
            assert caught.value.retry_after_s == 30
        assert len(house.store.sent) == 1


@pytest.mark.parametrize("subject", ["model:m/bytes", "model:m/memory"])
async def test_a_limit_that_a_smaller_image_may_pass_is_asked_each_time(
    subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.relay.STAYS_FULL_S", 3600)
    async with House() as house:
        house.store.refusal = errors.QueueFull(subject, "full")
        for _ in range(2):
            with pytest.raises(errors.QueueFull):
                await house.predict()
        assert len(house.store.sent) == 2


async def test_a_flood_is_known_only_while_every_model_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.relay.STAYS_FULL_S", 3600)
    monkeypatch.setattr(FakeFleet, "drain_per_s", 1e-9)
    async with House() as house:
        assert house.relay.flood() is None
        house.store.refusal = errors.QueueFull("model:m/jobs", "full")
        with pytest.raises(errors.QueueFull):
            await house.predict()
        flood = house.relay.flood()
        assert flood is not None
        assert (flood.subject, str(flood), flood.retry_after_s) == ("model:m/jobs", "full", 30)
        monkeypatch.setattr(FakeFleet, "names", ("m", "other"))
        assert house.relay.flood() is None
        monkeypatch.setattr(FakeFleet, "names", ())  # Redis was emptied
        assert house.relay.flood() is None


async def test_a_queue_that_was_full_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.relay.STAYS_FULL_S", 0)
    async with House() as house:
        house.store.refusal = errors.QueueFull("model:m/jobs", "full")
        with pytest.raises(errors.QueueFull):
            await house.predict()
        house.store.refusal = None
        house.store.on_enqueue = house.answer
        assert (await house.predict()).answer.batch_size == 1


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("IMAGE_UNDECODABLE", errors.ImageUndecodable),
        ("INFERENCE_FAILED", errors.InferenceFailed),
        ("JOB_POISONED", errors.JobPoisoned),
        ("EXPIRED_IN_QUEUE", errors.ExpiredInQueue),
        ("OF_A_LATER_VERSION", errors.InferenceFailed),
        ("OUTCOME_UNKNOWN", errors.InferenceFailed),
    ],
)
async def test_what_the_worker_says_reaches_the_caller_as_an_error(
    reason: str, kind: type[errors.DespachoError]
) -> None:
    async with House() as house:

        def fail(job: Job) -> None:
            failure = Failure(reason=reason, message="because")
            house.pending.deliver(Reply(job_id=job.id, failure=failure, worker="worker-1"))

        house.store.on_enqueue = fail
        with pytest.raises(kind, match="because") as caught:
            await house.predict()
        assert caught.value.worker == "worker-1"


async def test_a_broker_known_to_be_away_refuses_at_once() -> None:
    async with House() as house:
        house.store.failure = errors.BrokerUnavailable("away")
        house.link.lost()
        with pytest.raises(errors.BrokerUnavailable):
            await house.predict()


async def test_a_job_that_was_not_sent_is_refused() -> None:
    async with House() as house:
        house.store.failure = errors.BrokerUnavailable("away")
        with pytest.raises(errors.BrokerUnavailable):
            await house.predict()


async def test_a_job_that_may_have_been_sent_is_sent_again() -> None:
    async with House() as house:
        house.store.failure = errors.OutcomeUnknown("cut")
        call = asyncio.create_task(house.predict())
        await house.until_link(is_up=False)
        assert not call.done()
        house.store.on_enqueue = house.answer
        house.store.failure = None
        assert (await asyncio.wait_for(call, 5)).answer.batch_size == 1
        assert len(house.store.sent) == 1


async def test_a_job_behind_a_send_that_hangs_is_refused_within_a_second() -> None:
    async with House() as house:
        house.store.is_open.clear()
        first = asyncio.create_task(house.predict())
        await asyncio.sleep(0)  # the writer takes it, and hangs
        await asyncio.sleep(0)
        with pytest.raises(errors.BrokerUnavailable):
            async with asyncio.timeout(1):
                await house.predict()
        assert not first.done()  # it may be in Redis: it waits
        first.cancel()


async def test_each_job_behind_a_send_that_hangs_is_refused_in_its_own_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.writer.SEND_WITHIN_S", 0.2)
    async with House() as house:
        house.store.is_open.clear()
        first = asyncio.create_task(house.predict())
        await asyncio.sleep(0)  # the writer takes it, and hangs
        await asyncio.sleep(0)
        refused = []
        for _ in range(2):
            refused.append(asyncio.create_task(house.predict()))
            await asyncio.sleep(0.1)
        for call in refused:
            with pytest.raises(errors.BrokerUnavailable):
                await asyncio.wait_for(call, 5)
        with pytest.raises(errors.BrokerUnavailable):  # and so when all of them were refused
            await asyncio.wait_for(house.predict(), 5)
        first.cancel()


async def test_jobs_that_wait_are_refused_as_soon_as_the_broker_is_lost() -> None:
    async with House() as house:
        house.store.is_open.clear()
        first = asyncio.create_task(house.predict())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = asyncio.create_task(house.predict())
        await asyncio.sleep(0)
        house.link.lost()
        with pytest.raises(errors.BrokerUnavailable):
            await asyncio.wait_for(second, 0.5)
        first.cancel()


async def test_a_full_queue_does_not_fail_a_job_that_is_sent_again() -> None:
    async with House() as house:
        call = asyncio.create_task(house.predict())
        await house.store.until_sent(1)
        house.store.refusal = errors.QueueFull("jobs", "full")
        (enqueue,) = house.store.sent
        assert isinstance(enqueue, Enqueue)
        house.writer.enqueue_again(enqueue.submission)
        await house.store.until_sent(2)
        house.answer(enqueue.submission.job)
        assert (await call).answer.batch_size == 1


class Traced(bytes):
    """Bytes that can be counted while they live."""

    @classmethod
    def alive(cls) -> int:
        return sum(isinstance(each, cls) for each in gc.get_objects())


async def test_a_call_that_fails_leaves_its_image_to_nobody() -> None:
    gc.collect()
    gc.disable()  # collections are seldom in a front-end, and images large
    try:
        async with House() as house:
            for _ in range(3):
                # `pytest.raises` would keep what was raised, and the image with it.
                with suppress(errors.ExpiredInQueue):
                    await house.relay.predict(
                        Job(model="m"), Traced(b"x"), priority=Priority.NORMAL, timeout_s=0.01
                    )
            assert len(house.store.sent) >= 3
            house.store.sent.clear()
            await asyncio.sleep(0)  # the loop lets go of what it has just run
            assert Traced.alive() == 0
    finally:
        gc.enable()
