"""Register, send, wait: in that order, whatever happens meanwhile."""

import asyncio
import gc
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest

from despacho.job.v1.job_pb2 import Answer, Failure, Job, ModelCard, Reply
from dispatch import errors, keys
from dispatch.job_store import Cancel, Enqueue, Operation
from dispatch.jobs import Outcome, Priority
from dispatch.link import Link
from server.fleet import ModelView
from server.pending import PendingReplies
from server.relay import Relay
from server.writer import Writer


class FakeStore:
    """A broker in memory: keeps what was sent, and can be away or silent."""

    def __init__(self) -> None:
        self.sent: list[Operation] = []
        self.sends = 0
        self.failure: errors.DespachoError | None = None
        self.refusal: errors.DespachoError | None = None
        self.cancel_refusal: errors.DespachoError | None = None
        self.on_enqueue: Callable[[Job], object] = lambda _job: None
        self.grew = asyncio.Event()
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def complaints(self) -> list[str]:
        if self.failure is not None:
            raise self.failure
        return []

    async def send(self, operations: Sequence[Operation]) -> list[errors.DespachoError | None]:
        await self.is_open.wait()
        if self.failure is not None:
            raise self.failure
        self.sent += operations
        self.sends += 1
        self.grew.set()
        for operation in operations:
            if isinstance(operation, Enqueue):
                self.on_enqueue(operation.submission.job)
        return [
            self.refusal if isinstance(each, Enqueue) else self.cancel_refusal
            for each in operations
        ]

    async def until_sent(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.sent) < count:
                self.grew.clear()
                await self.grew.wait()


class FakeFleet:
    """One model, always there."""

    drain_per_s = 10.0
    names = ("m",)

    def models(self) -> list[ModelView]:
        return [self.get(name) for name in self.names]

    def get(self, name: str) -> ModelView:
        card = ModelCard(name=name)
        rate = self.drain_per_s
        return ModelView(card, 1, 0, ("1",), queue_depth=100, queued_operations=0, drain_per_s=rate)

    def check_can_answer(self, name: str) -> None:
        assert name


class House:
    """A relay with its writer running on a fake broker."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.link = Link()
        self.pending = PendingReplies(max_jobs=100, max_bytes=1000)
        self.writer = Writer(self.store, self.link, self.pending)  # type: ignore[arg-type]
        self.relay = Relay(FakeFleet(), self.pending, self.writer, "server-1")  # type: ignore[arg-type]

    async def __aenter__(self) -> "House":  # noqa: PYI034 - a test's own class
        self.task = asyncio.create_task(self.writer.run())
        await self.until_link(is_up=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def until_link(self, *, is_up: bool) -> None:
        changed = asyncio.Event()
        self.link.on_change(changed.set)
        async with asyncio.timeout(5):
            while self.link.is_up != is_up:
                changed.clear()
                await changed.wait()

    async def predict(self, *, timeout_s: float = 30) -> Reply:
        return await self.relay.predict(
            Job(model="m"), b"image", priority=Priority.NORMAL, timeout_s=timeout_s
        )

    def answer(self, job: Job) -> None:
        self.pending.deliver(Reply(job_id=job.id, answer=Answer(batch_size=1)))


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
            house.pending.deliver(Reply(job_id=job.id, failure=failure))

        house.store.on_enqueue = fail
        with pytest.raises(kind, match="because"):
            await house.predict()


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


async def test_the_last_cancels_are_sent_before_the_end() -> None:
    async with House() as house:
        call = asyncio.create_task(house.predict())
        await house.store.until_sent(1)
        house.relay.give_up()
        with pytest.raises(errors.Draining):
            await call
        await house.writer.settle(5)
        assert isinstance(house.store.sent[-1], Cancel)


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


async def test_a_cancel_outlives_a_broken_connection() -> None:
    async with House() as house:
        call = asyncio.create_task(house.predict())
        await house.store.until_sent(1)
        house.store.failure = errors.OutcomeUnknown("cut")
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await house.until_link(is_up=False)
        house.store.failure = None
        await house.store.until_sent(2)
        assert isinstance(house.store.sent[1], Cancel)


async def test_a_cancel_that_redis_refuses_is_sent_until_it_does_not() -> None:
    async with House() as house:
        call = asyncio.create_task(house.predict())
        await house.store.until_sent(1)
        house.store.cancel_refusal = errors.BrokerUnavailable("no writes")
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await house.store.until_sent(3)
        assert house.link.is_up  # what only reads goes on
        house.store.cancel_refusal = None
        sent = len(house.store.sent)
        await house.writer.settle(5)
        assert len(house.store.sent) == sent + 1
        assert all(isinstance(each, Cancel) for each in house.store.sent[1:])


async def test_cancels_that_redis_refuses_hold_up_nobody() -> None:
    async with House() as house:
        calls = [asyncio.create_task(house.predict()) for _ in range(100)]
        await house.store.until_sent(100)
        house.store.cancel_refusal = errors.BrokerUnavailable("no writes")
        for call in calls:
            call.cancel()
        await house.store.until_sent(200)
        sent, sends = len(house.store.sent), house.store.sends
        await house.store.until_sent(sent + 3)
        assert house.store.sends == sends + 3  # one at a time
        house.store.cancel_refusal = None
        sent = len(house.store.sent)
        await house.writer.settle(5)
        cancelled = [each.job_id for each in house.store.sent[sent:] if isinstance(each, Cancel)]
        assert len(cancelled) == len(set(cancelled)) == 100


async def test_a_cancel_that_redis_refuses_is_forgotten_with_its_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keys, "JOB_GRACE_MS", 300)
    async with House() as house:
        house.store.cancel_refusal = errors.BrokerUnavailable("no writes")
        with pytest.raises(errors.ExpiredInQueue):
            await house.predict(timeout_s=0.05)
        async with asyncio.timeout(5):
            await house.writer.settle(60)
        assert len(house.store.sent) > 1


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
