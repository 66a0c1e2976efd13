"""The table of waiters: every way in, every way out."""

import asyncio
import time
from uuid import uuid4

import pytest

from despacho.job.v1.job_pb2 import Job, Reply
from dispatch.errors import BrokerUnavailable, ExpiredInQueue, QueueFull
from dispatch.jobs import Priority, Submission
from server.pending import PendingReplies
from telemetry.metrics_catalogue import LATE_REPLIES


def submission(*, image: bytes = b"image", timeout_s: float = 30) -> Submission:
    job = Job(id=uuid4().hex, model="m")
    return Submission(job, image, Priority.NORMAL, time.monotonic() + timeout_s)


@pytest.fixture
def pending() -> PendingReplies:
    return PendingReplies(max_jobs=3, max_bytes=100)


async def test_a_reply_reaches_its_waiter(pending: PendingReplies) -> None:
    sent = submission()
    with pending.expect(sent) as reply:
        assert pending.deliver(Reply(job_id=sent.job.id, worker="w"))
        assert (await reply).worker == "w"
    assert len(pending) == 0


async def test_a_reply_nobody_waits_for_is_counted_and_ignored(pending: PendingReplies) -> None:
    before = LATE_REPLIES.read().get((), (0,))[0]
    assert not pending.deliver(Reply(job_id="unknown"))
    assert LATE_REPLIES.read()[()] == (before + 1,)


async def test_the_second_of_two_replies_is_ignored(pending: PendingReplies) -> None:
    sent = submission()
    with pending.expect(sent) as reply:
        assert pending.deliver(Reply(job_id=sent.job.id, worker="first"))
        assert not pending.deliver(Reply(job_id=sent.job.id, worker="second"))
        assert (await reply).worker == "first"


async def test_the_deadline_ends_the_wait(pending: PendingReplies) -> None:
    with (
        pending.expect(submission(timeout_s=30)),
        pending.expect(submission(timeout_s=0.01)) as soon,
        pytest.raises(ExpiredInQueue),
    ):
        await asyncio.wait_for(soon, 5)


async def test_each_deadline_has_its_turn(pending: PendingReplies) -> None:
    with (
        pending.expect(submission(timeout_s=0.02)) as second,
        pending.expect(submission(timeout_s=0.01)) as first,
    ):
        await asyncio.wait([first, second], timeout=5)
        assert isinstance(first.exception(), ExpiredInQueue)
        assert isinstance(second.exception(), ExpiredInQueue)


async def test_a_deadline_that_has_passed_already_ends_the_wait_at_once(
    pending: PendingReplies,
) -> None:
    with pending.expect(submission(timeout_s=-1)) as reply, pytest.raises(ExpiredInQueue):
        await asyncio.wait_for(reply, 5)


async def test_a_refusal_reaches_its_waiter(pending: PendingReplies) -> None:
    sent = submission()
    with pending.expect(sent) as reply:
        pending.fail(sent.job.id, BrokerUnavailable("gone"))
        with pytest.raises(BrokerUnavailable):
            await reply
    pending.fail(sent.job.id, BrokerUnavailable("nobody there"))


async def test_jobs_beyond_the_limit_are_refused_until_one_leaves(pending: PendingReplies) -> None:
    with pending.expect(submission()), pending.expect(submission()):
        with pending.expect(submission()), pytest.raises(QueueFull), pending.expect(submission()):
            pass
        with pending.expect(submission()):
            assert len(pending) == 3


async def test_bytes_beyond_the_limit_are_refused(pending: PendingReplies) -> None:
    with (
        pending.expect(submission(image=b"x" * 90)),
        pytest.raises(QueueFull),
        pending.expect(submission(image=b"x" * 20)),
    ):
        pass
    # What has left takes no room, and one that is larger than the limit may wait alone.
    with pending.expect(submission(image=b"x" * 200)):
        assert pending.size_bytes == 200


async def test_answered_calls_do_not_pile_up_until_their_deadlines() -> None:
    pending = PendingReplies(max_jobs=10, max_bytes=1000)
    for _ in range(5000):
        with pending.expect(submission(timeout_s=300)):
            pass
    assert len(pending._deadlines) < 2000


async def test_old_waiters_are_listed_oldest_first(pending: PendingReplies) -> None:
    first, second = submission(), submission()
    with pending.expect(first), pending.expect(second):
        listed = [waiter.submission for waiter in pending.waiting_longer_than(0)]
        assert listed == [first, second]
        assert pending.waiting_longer_than(60) == []
