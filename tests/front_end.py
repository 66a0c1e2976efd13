"""A front-end without Redis: the real gRPC server over a relay and a fleet with behaviour."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import grpc

from despacho.job.v1 import job_pb2
from dispatch import errors
from dispatch.jobs import Priority
from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from server.grpc_server import grpc_server
from server.settings import ServerSettings

if TYPE_CHECKING:
    from prediction.v1.prediction_pb2_grpc import PredictionServiceAsyncStub

LIMIT_S = 10.0
"""How long a test waits for what must happen."""

MODEL = "efficientnet-lite0"


class Notice:
    """Wakes whoever waits for a state that may have changed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def announce(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def next(self) -> None:
        await self._event.wait()

    async def until(self, is_reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not is_reached():
                await self.next()


@dataclass(frozen=True)
class Submitted:
    job: job_pb2.Job
    image: bytes
    priority: Priority
    timeout_s: float


class FakeRelay:
    """Fails as `failures` says, holds images that begin with `hold`, answers the rest."""

    def __init__(self) -> None:
        self.failures: dict[bytes, BaseException] = {}
        self.submitted: list[Submitted] = []
        self.cancelled: list[bytes] = []
        self.notice = Notice()
        self._released: set[bytes] = set()
        self._all_released = False
        self._has_given_up = False

    async def predict(
        self, job: job_pb2.Job, image: bytes, *, priority: Priority, timeout_s: float
    ) -> job_pb2.Reply:
        self.submitted.append(Submitted(job, image, priority, timeout_s))
        self.notice.announce()
        if image in self.failures:
            raise self.failures[image]
        try:
            while image.startswith(b"hold") and not self._is_released(image):
                await self.notice.next()
                if self._has_given_up:
                    raise errors.Draining("given up")
        except asyncio.CancelledError:
            self.cancelled.append(image)
            self.notice.announce()
            raise
        return job_pb2.Reply(
            job_id="1",
            worker="worker-1",
            attempt=1,
            answer=job_pb2.Answer(
                model_version="1.0",
                labels=[job_pb2.Label(name="cat", class_id=281, score=0.9)],
                scores=[0.1, 0.9] if job.include_scores else [],
                queue_us=1_500,
                decode_us=2_000_000,
                inference_us=30,
                batch_size=4,
            ),
        )

    def give_up(self) -> None:
        self._has_given_up = True
        self.notice.announce()

    def release(self, image: bytes) -> None:
        self._released.add(image)
        self.notice.announce()

    def release_all(self) -> None:
        self._all_released = True
        self.notice.announce()

    def _is_released(self, image: bytes) -> bool:
        return self._all_released or image in self._released


@dataclass(frozen=True)
class FakeView:
    card: job_pb2.ModelCard = field(
        default_factory=lambda: job_pb2.ModelCard(
            name=MODEL,
            version="1.0",
            engine="tensorflow",
            labels=["dog", "cat"],
            input_width=224,
            input_height=224,
            max_batch_size=16,
        )
    )
    ready_workers: int = 1
    loading_workers: int = 0
    live_versions: tuple[str, ...] = ("1.0",)
    queue_depth: int = 30
    drain_per_s: float | None = 20.0


class FakeFleet:
    """One model, until told otherwise."""

    def __init__(self) -> None:
        self.is_connected = True
        self.views = {MODEL: FakeView()}
        self.notice = Notice()

    def resolve(self, name: str) -> str:
        if not name and len(self.views) == 1:
            return next(iter(self.views))
        if not name:
            raise errors.InvalidArgument("model", "there are several models")
        return self.get(name).card.name

    def models(self) -> list[FakeView]:
        return [self.views[name] for name in sorted(self.views)]

    def get(self, name: str) -> FakeView:
        if name not in self.views:
            raise errors.ModelNotFound(name)
        return self.views[name]

    async def changed(self) -> None:
        await self.notice.next()

    def connect(self, *, is_connected: bool) -> None:
        self.is_connected = is_connected
        self.notice.announce()

    def set_workers(self, *, ready: int, loading: int = 0) -> None:
        self.views[MODEL] = replace(self.views[MODEL], ready_workers=ready, loading_workers=loading)
        self.notice.announce()


@dataclass
class FrontEnd:
    relay: FakeRelay
    fleet: FakeFleet
    address: str
    channel: grpc.aio.Channel
    stub: "PredictionServiceAsyncStub"


@asynccontextmanager
async def front_end(
    *,
    drain_notice_s: float = 0,
    channel_options: tuple[tuple[str, object], ...] = (),
    **settings: object,
) -> AsyncIterator[FrontEnd]:
    """Run a front-end on a free port, and connect to it."""
    relay, fleet = FakeRelay(), FakeFleet()
    chosen = ServerSettings.model_validate(
        {"address": "127.0.0.1:0", "drain_s": 0.5, **settings}, by_name=True
    )
    async with (
        grpc_server(chosen, relay=relay, fleet=fleet, drain_notice_s=drain_notice_s) as address,
        grpc.aio.insecure_channel(address, options=list(channel_options)) as channel,
    ):
        yield FrontEnd(relay, fleet, address, channel, PredictionServiceStub(channel))
