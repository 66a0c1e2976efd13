"""Cancels reach Redis whatever happens meanwhile, and hold up nobody."""

import asyncio

import pytest

from dispatch import errors, keys
from dispatch.job_store import Cancel
from tests.relay_house import House


async def test_the_last_cancels_are_sent_before_the_end() -> None:
    async with House() as house:
        call = asyncio.create_task(house.predict())
        await house.store.until_sent(1)
        house.relay.give_up()
        with pytest.raises(errors.Draining):
            await call
        await house.writer.settle(5)
        assert isinstance(house.store.sent[-1], Cancel)


async def test_the_end_waits_no_longer_than_it_may_for_a_broker_that_is_away() -> None:
    async with House() as house:
        call = asyncio.create_task(house.predict())
        await house.store.until_sent(1)
        house.store.failure = errors.BrokerUnavailable("away")
        house.relay.give_up()
        with pytest.raises(errors.Draining):
            await call
        async with asyncio.timeout(5):
            await house.writer.settle(0.05)
        assert len(house.store.sent) == 1


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
