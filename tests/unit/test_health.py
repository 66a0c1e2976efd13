"""What the health service says, asked without a server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from grpc_health.v1 import health_pb2

from despacho.job.v1.job_pb2 import ModelCard
from server.health import NOT_SERVING, READINESS, SERVICES, SERVING, HealthService
from tests.front_end import FakeFleet, view_of

LIMIT_S = 5


@pytest.fixture
def fleet() -> FakeFleet:
    return FakeFleet()


@pytest.fixture
async def health(fleet: FakeFleet) -> AsyncIterator[HealthService]:
    async with HealthService(fleet) as health:
        yield health


async def states(health: HealthService) -> dict[str, int]:
    listed = await health.List(health_pb2.HealthListRequest(), None)  # type: ignore[arg-type]
    return {name: int(each.status) for name, each in listed.statuses.items()}


async def test_what_drains_serves_never_again_whatever_becomes_of_the_fleet(
    fleet: FakeFleet, health: HealthService
) -> None:
    assert set((await states(health)).values()) == {SERVING}
    health.drain()
    fleet.set_workers(ready=2)
    for _ in range(5):  # whoever follows the fleet has its turn
        await asyncio.sleep(0)
    assert set((await states(health)).values()) == {NOT_SERVING}


async def test_no_model_speaks_for_the_process(fleet: FakeFleet, health: HealthService) -> None:
    for name in ("", READINESS, *SERVICES):
        fleet.views = {name: view_of(ModelCard(name=name), ready_workers=0)}
        health._refresh()
        assert (await states(health))[name] == SERVING


async def test_a_watch_ends_with_the_service(health: HealthService) -> None:
    seen: list[int] = []
    is_told = asyncio.Event()

    async def watch() -> None:
        request = health_pb2.HealthCheckRequest(service="")
        async for each in health.Watch(request, None):  # type: ignore[arg-type]
            seen.append(int(each.status))
            is_told.set()

    watching = asyncio.create_task(watch())
    await asyncio.wait_for(is_told.wait(), LIMIT_S)
    await asyncio.sleep(0)  # it waits for a change
    health.close()
    await asyncio.wait_for(watching, LIMIT_S)
    assert seen == [SERVING]
