"""Replies are read of models that are there, or that calls wait for."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from despacho.job.v1.job_pb2 import Job, Reply
from dispatch.errors import BrokerUnavailable, DespachoError, OutcomeUnknown
from dispatch.jobs import Priority, Submission
from dispatch.link import Link
from server.pending import PendingReplies
from server.reply_reader import ReplyReader

LIMIT_S = 5


def submission() -> Submission:
    return Submission(Job(id="1", model="m"), b"image", Priority.NORMAL, time.monotonic() + 60)


class FakeStream:
    """Replies that a test writes."""

    oldest_ms = 0

    def __init__(self, said: list[str]) -> None:
        self.said = said
        self.replies: asyncio.Queue[list[Reply] | DespachoError] = asyncio.Queue()

    async def open(self) -> None:
        self.said.append("open")

    async def read(self) -> list[Reply]:
        replies = await self.replies.get()
        if isinstance(replies, DespachoError):
            raise replies
        return replies

    async def delete(self) -> None:
        await asyncio.sleep(0)
        self.said.append("delete")

    async def aclose(self) -> None:
        self.said.append("close")


class House:
    """A reader, and what became of its streams."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.said: list[str] = []
        self.streams: list[FakeStream] = []
        self.pending = PendingReplies(max_jobs=10, max_bytes=1000)
        self.link = Link()
        self.reader = ReplyReader(self, self.link, self.pending, tasks)  # type: ignore[arg-type]

    def replies(self, model: str) -> FakeStream:
        assert model == "m"
        self.streams.append(FakeStream(self.said))
        return self.streams[-1]


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        made = House(tasks)
        try:
            yield made
        finally:
            made.reader.stop()


async def test_the_stream_of_a_model_that_is_gone_is_deleted_before_another_one_is_opened() -> None:
    async with house() as here:
        await here.reader.listen("m")
        await asyncio.sleep(0)
        await here.reader.listen_to_no_other(["m", "n"])
        assert here.said == ["open"]
        await here.reader.listen_to_no_other(["n"])
        assert here.said == ["open", "delete", "close"]
        await here.reader.listen("m")
        assert here.said == ["open", "delete", "close", "open"]


async def test_a_call_that_waits_gets_its_reply_though_its_model_is_gone() -> None:
    async with house() as here:
        await here.reader.listen("m")
        with here.pending.expect(submission()) as reply:
            await here.reader.listen_to_no_other([])
            here.streams[0].replies.put_nowait([Reply(job_id="1")])
            assert (await reply).job_id == "1"
        await here.reader.listen_to_no_other([])
        assert here.said == ["open", "delete", "close"]


@pytest.mark.parametrize("failure", [BrokerUnavailable("away"), OutcomeUnknown("cut")])
async def test_a_read_that_breaks_is_told_and_tried_again(
    failure: DespachoError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.reply_reader.RETRY_PAUSE_S", 0)
    async with house() as here:
        here.link.restored()
        await here.reader.listen("m")
        with here.pending.expect(submission()) as reply:
            here.streams[0].replies.put_nowait(failure)
            here.streams[0].replies.put_nowait([Reply(job_id="1")])
            assert (await reply).job_id == "1"
        assert not here.link.is_up
