"""Sweeps go on, whatever becomes of one of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from structlog.testing import capture_logs

from despacho.job.v1.job_pb2 import ModelCard
from dispatch.errors import BrokerUnavailable, OutcomeUnknown
from server import overdue_jobs
from server.overdue_jobs import OverdueJobs
from tests.front_end import FakeFleet, view_of

LIMIT_S = 5
MODELS = ["a", "b", "c"]


class FakeStore:
    """Remembers what was swept; fails as `failures` says, by model."""

    def __init__(self) -> None:
        self.swept: list[str] = []
        self.failures: dict[str, Exception] = {}
        self._grew = asyncio.Event()

    async def end_overdue(self, model: str) -> int:
        self.swept.append(model)
        self._grew.set()
        if model in self.failures:
            raise self.failures[model]
        return 0

    async def until_swept(self, count: int) -> None:
        async with asyncio.timeout(LIMIT_S):
            while len(self.swept) < count:
                self._grew.clear()
                await self._grew.wait()


@asynccontextmanager
async def sweeping(calls: FakeStore, operations: FakeStore) -> AsyncIterator[None]:
    fleet = FakeFleet()
    fleet.views = {name: view_of(ModelCard(name=name)) for name in MODELS}
    sweeps = OverdueJobs(calls, operations, fleet)  # type: ignore[arg-type]
    task = asyncio.create_task(sweeps.run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue_jobs, "PERIOD_S", 0)


async def test_every_model_is_swept_again_and_again() -> None:
    calls, operations = FakeStore(), FakeStore()
    async with sweeping(calls, operations):
        await operations.until_swept(6)
    assert calls.swept[:6] == operations.swept[:6] == MODELS * 2


@pytest.mark.parametrize(
    ("failure", "is_logged"),
    [(BrokerUnavailable("away"), False), (OutcomeUnknown("cut"), False), (ValueError("x"), True)],
)
async def test_a_sweep_that_fails_ends_neither_the_others_nor_later_ones(
    failure: Exception, *, is_logged: bool
) -> None:
    calls, operations = FakeStore(), FakeStore()
    calls.failures["a"] = failure
    with capture_logs() as logs:
        async with sweeping(calls, operations):
            await operations.until_swept(6)
    assert calls.swept[:6] == operations.swept[:6] == MODELS * 2
    assert [each["model"] for each in logs if each["log_level"] == "error"][:1] == (
        ["a"] if is_logged else []
    )
