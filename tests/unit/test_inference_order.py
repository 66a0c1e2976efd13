"""Answers in the order of the questions, and what becomes of that when a stream is given up."""

import asyncio
from contextlib import suppress

import pytest

from server.inference_order import InOrder
from tests.front_end import LIMIT_S


async def fails_when_cancelled() -> None:
    """Do as a group of tasks does, one of which failed in the moment of the cancellation."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise LookupError from None


async def ends_when_cancelled() -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


async def test_what_fails_while_it_is_cancelled_waits_for_none_before_it() -> None:
    order = InOrder()
    works = (asyncio.Event().wait(), fails_when_cancelled(), ends_when_cancelled())
    tasks = [asyncio.create_task(order.result(work)) for work in works]
    await asyncio.sleep(0)  # each begins
    for task in tasks:
        task.cancel()
    async with asyncio.timeout(LIMIT_S):
        await asyncio.wait(tasks)
    assert tasks[0].cancelled()
    assert isinstance(tasks[1].exception(), LookupError)
    assert tasks[2].exception() is None


async def test_a_failure_comes_when_those_before_it_have_ended() -> None:
    order, is_ready = InOrder(), asyncio.Event()
    first = asyncio.create_task(order.result(is_ready.wait()))
    second = asyncio.create_task(order.result(asyncio.wait_for(asyncio.Event().wait(), 0)))
    await asyncio.sleep(0)
    assert not second.done()
    is_ready.set()
    with pytest.raises(TimeoutError):
        await second
    assert first.done()
