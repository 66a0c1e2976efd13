"""A front-end without Redis: the real gRPC server over a relay and a fleet with behaviour."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import grpc

from despacho.job.v1 import job_pb2
from dispatch import errors
from dispatch.jobs import Priority
from dispatch.link import Link
from dispatch.operation_store import PAGE_BYTES
from dispatch.operations import NewOperation, Operation, OperationKey, OperationPage, Progress
from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from server.admin import Admin
from server.grpc_server import grpc_server
from server.ports import ModelView
from server.settings import ServerSettings
from tests.fake_letters import FakeDeadLetters
from tests.fake_stats import FakeStats

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
        self.flooded: errors.DespachoError | None = None
        self.scores = [0.1, 0.9]
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
                scores=self.scores if job.include_scores else [],
                queue_us=1_500,
                decode_us=2_000_000,
                inference_us=30,
                batch_size=4,
            ),
        )

    def flood(self) -> errors.DespachoError | None:
        return self.flooded

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


CARD = job_pb2.ModelCard(
    name=MODEL,
    version="1.0",
    engine="tensorflow",
    labels=["dog", "cat"],
    input_width=224,
    input_height=224,
    max_batch_size=16,
)


def view_of(card: job_pb2.ModelCard, *, ready_workers: int = 1) -> ModelView:
    return ModelView(
        card=card,
        ready_workers=ready_workers,
        loading_workers=0,
        live_versions=("1.0",),
        queue_depth=30,
        queued_operations=7,
        drain_per_s=20.0,
    )


class FakeFleet:
    """One model, until told otherwise."""

    def __init__(self) -> None:
        self.is_current = True
        self.views = {MODEL: view_of(CARD)}
        self.notice = Notice()

    def resolve(self, name: str) -> str:
        if not name and len(self.views) == 1:
            return next(iter(self.views))
        if not name:
            raise errors.InvalidArgument("model", "there are several models")
        return self.get(name).card.name

    def models(self) -> list[ModelView]:
        return [self.views[name] for name in sorted(self.views)]

    def listed(self) -> list[ModelView]:
        if not self.is_current:
            raise errors.BrokerUnavailable("the broker cannot be reached")
        return self.models()

    def get(self, name: str) -> ModelView:
        if name not in self.views:
            raise errors.ModelNotFound(name)
        return self.views[name]

    async def changed(self) -> None:
        await self.notice.next()

    def forget(self, model: str) -> bool:
        was_there = self.views.pop(model, None) is not None
        self.notice.announce()
        return was_there

    def connect(self, *, is_connected: bool) -> None:
        self.is_current = is_connected
        self.notice.announce()

    def set_workers(self, *, ready: int, loading: int = 0) -> None:
        self.views[MODEL] = replace(self.views[MODEL], ready_workers=ready, loading_workers=loading)
        self.notice.announce()


class FakeOperations:
    """Keeps operations in memory; one ends when it is told to."""

    def __init__(self) -> None:
        self.kept: dict[OperationKey, Operation] = {}
        self.submitted: list[Submission] = []
        self.failure: errors.DespachoError | None = None
        self.waiting = 0
        self.notice = Notice()

    async def submit(
        self,
        job: job_pb2.Job,
        image: bytes,
        *,
        caller: str,
        request_id: str,
        is_synced: bool,
        timeout_s: float,
    ) -> Operation:
        del timeout_s
        if self.failure is not None:
            raise self.failure
        request_id = request_id or f"made-{len(self.kept)}"
        new = NewOperation.of(job, image, caller=caller, request_id=request_id)
        self.submitted.append(Submission(new, is_synced))
        return self.kept.setdefault(
            new.key,
            Operation(
                job=job,
                created_ms=1_700_000_000_000 + len(self.kept),
                deadline_ms=1_700_003_600_000,
                ended_ms=None,
                expires_ms=1_700_007_200_000,
                now_ms=1_700_000_000_000,
                progress=Progress.QUEUED,
                attempt=0,
                position=len(self.kept) + 1,
                reply=None,
            ),
        )

    def end(self, key: OperationKey, reply: job_pb2.Reply) -> None:
        self.kept[key] = replace(
            self.kept[key],
            ended_ms=1_700_000_002_500,
            progress=Progress.DONE,
            attempt=reply.attempt,
            position=0,
            reply=reply,
        )
        self.notice.announce()

    async def get(self, key: OperationKey, *, timeout_s: float) -> Operation:
        del timeout_s
        if self.failure is not None:
            raise self.failure
        if key not in self.kept:
            raise errors.OperationNotFound(f"models/{key.model}/operations/{key.id}")
        return self.kept[key]

    async def find(self, operation_id: str, caller: str, *, timeout_s: float) -> OperationKey:
        del timeout_s
        keys = {(key.id, key.caller): key for key in self.kept}
        return keys.get((operation_id, caller), OperationKey("-", operation_id, caller))

    async def wait(self, key: OperationKey, *, timeout_s: float) -> Operation:
        self.waiting += 1
        self.notice.announce()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while (await self.get(key, timeout_s=0)).reply is None:
                    await self.notice.next()
        return await self.get(key, timeout_s=0)

    async def page(
        self, model: str, caller: str, *, before: int, count: int, used_bytes: int, timeout_s: float
    ) -> OperationPage:
        del timeout_s
        found = sorted(
            (
                each
                for key, each in self.kept.items()
                if (key.model, key.caller) == (model, caller) and each.created_ms < before
            ),
            key=lambda each: -each.created_ms,
        )
        shown: list[Operation] = []
        for each in found[:count]:
            if used_bytes and used_bytes + each.size_bytes > PAGE_BYTES:
                return OperationPage(shown, used_bytes, before)
            shown.append(each)
            used_bytes += each.size_bytes
            before = each.created_ms
        return OperationPage(shown, used_bytes, before if len(shown) == count else None)

    async def cancel(self, key: OperationKey, *, timeout_s: float) -> None:
        operation = await self.get(key, timeout_s=timeout_s)
        if operation.reply is None:
            failure = job_pb2.Failure(reason=errors.OperationCancelled.reason, message="cancelled")
            self.end(key, job_pb2.Reply(failure=failure))

    async def delete(self, key: OperationKey, *, timeout_s: float) -> None:
        await self.get(key, timeout_s=timeout_s)
        del self.kept[key]


@dataclass(frozen=True)
class Submission:
    new: NewOperation
    is_synced: bool


@dataclass
class FrontEnd:
    relay: FakeRelay
    operations: FakeOperations
    letters: FakeDeadLetters
    stats: FakeStats
    link: Link
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
    relay, operations, fleet = FakeRelay(), FakeOperations(), FakeFleet()
    letters, stats, link = FakeDeadLetters(fleet), FakeStats(), Link()
    link.restored()
    chosen = ServerSettings.model_validate(
        {"address": "127.0.0.1:0", "drain_s": 0.5, **settings}, by_name=True
    )
    async with (
        grpc_server(
            chosen,
            relay=relay,
            operations=operations,
            admin=Admin(letters, operations, link, fleet),
            stats=stats,
            fleet=fleet,
            drain_notice_s=drain_notice_s,
        ) as address,
        grpc.aio.insecure_channel(address, options=list(channel_options)) as channel,
    ):
        yield FrontEnd(
            relay,
            operations,
            letters,
            stats,
            link,
            fleet,
            address,
            channel,
            PredictionServiceStub(channel),
        )
