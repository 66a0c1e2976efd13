"""A front-end's relay and writer, with a broker in memory."""

import asyncio
from collections.abc import Callable, Sequence

from despacho.job.v1.job_pb2 import Answer, Job, ModelCard, Reply
from dispatch import errors
from dispatch.job_store import Enqueue, Operation
from dispatch.jobs import Priority
from dispatch.link import Link
from server.pending import PendingReplies
from server.ports import ModelView
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
