"""When a job that Redis seems to have lost is sent again, and when not."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from despacho.job.v1.job_pb2 import Job, Reply
from dispatch.errors import BrokerUnavailable, DespachoError, OutcomeUnknown
from dispatch.jobs import Priority, Submission
from server import lost_jobs
from server.lost_jobs import LostJobs
from server.pending import PendingReplies


class House:
    """Calls that wait, and a broker that has lost some of their jobs."""

    def __init__(self) -> None:
        self.pending = PendingReplies(max_jobs=100, max_bytes=1000)
        self.lost: set[str] = set()
        self.failures: list[DespachoError] = []
        self.asked: list[list[str]] = []
        self.on_asked: Callable[[], object] = lambda: None
        self.done: list[tuple[str, str]] = []
        self.jobs = LostJobs(self, self.pending, self)  # type: ignore[arg-type]

    async def missing(self, model: str, job_ids: Sequence[str]) -> list[str]:
        assert model == "m"
        self.asked.append(list(job_ids))
        self.on_asked()
        if self.failures:
            raise self.failures.pop()
        return [each for each in job_ids if each in self.lost]

    async def forget_enqueue(self, model: str, job_id: str) -> None:
        assert model == "m"
        self.done.append(("forget", job_id))

    def enqueue_again(self, submission: Submission) -> None:
        self.done.append(("send", submission.job.id))


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    monkeypatch.setattr(lost_jobs, "ASK_AFTER_S", 0)
    with ExitStack() as waiting:
        yield waiting


def wait(house: House, waiting: ExitStack, *ids: str) -> None:
    for each in ids:
        submission = Submission(
            Job(id=each, model="m"), b"", Priority.NORMAL, time.monotonic() + 60
        )
        waiting.enter_context(house.pending.expect(submission))


async def test_a_job_that_is_missing_twice_in_a_row_is_sent_again(waiting: ExitStack) -> None:
    house = House()
    wait(house, waiting, "1", "2")
    house.lost = {"2"}
    await house.jobs.look()
    assert house.done == []  # its reply may be on its way
    await house.jobs.look()
    # Else it would be taken for one that is there already.
    assert house.done == [("forget", "2"), ("send", "2")]
    await house.jobs.look()
    assert len(house.done) == 2  # it has just been sent
    await house.jobs.look()
    assert len(house.done) == 4


async def test_a_job_that_is_there_meanwhile_is_not_sent_again(waiting: ExitStack) -> None:
    house = House()
    wait(house, waiting, "1")
    for lost in ({"1"}, set[str](), {"1"}):
        house.lost = lost
        await house.jobs.look()
    assert house.done == []


async def test_a_job_that_is_answered_while_it_is_asked_after_is_not_sent_again(
    waiting: ExitStack,
) -> None:
    house = House()
    wait(house, waiting, "1")
    house.lost = {"1"}
    await house.jobs.look()
    house.on_asked = lambda: house.pending.deliver(Reply(job_id="1"))
    await house.jobs.look()
    assert house.done == []


async def test_all_that_wait_are_asked_after_some_at_a_time(
    waiting: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_jobs, "ASK_COUNT", 2)
    house = House()
    wait(house, waiting, *"12345")
    await house.jobs.look()
    assert house.asked == [["1", "2"], ["3", "4"], ["5"]]


async def test_a_broker_that_is_away_is_asked_again(
    waiting: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_jobs, "PERIOD_S", 0)
    house = House()
    wait(house, waiting, "1")
    house.failures = [BrokerUnavailable("away"), OutcomeUnknown("cut")]
    is_asked = asyncio.Event()
    house.on_asked = lambda: is_asked.set() if len(house.asked) > 2 else None
    running = asyncio.create_task(house.jobs.run())
    await asyncio.wait_for(is_asked.wait(), 5)
    running.cancel()
