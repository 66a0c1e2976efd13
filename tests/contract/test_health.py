"""What probes and load balancers may rely on."""

import json
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from inference import grpc_predict_v2_pb2 as pb
from inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from tests.front_end import LIMIT_S, MODEL, FrontEnd, front_end

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE = "prediction.v1.PredictionService"
INFERENCE = "inference.GRPCInferenceService"
OPERATIONS = "google.longrunning.Operations"
ADMIN = "prediction.v1.AdminService"
ALWAYS = ("", ADMIN)
WITH_REDIS = ("readiness", SERVICE, INFERENCE, OPERATIONS)


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with front_end() as running:
        yield running


class Watch:
    """One name, watched from outside."""

    def __init__(self, front: FrontEnd, name: str) -> None:
        request = health_pb2.HealthCheckRequest(service=name)
        self._call = HealthStub(front.channel).Watch(request, timeout=LIMIT_S)

    async def next(self) -> int:
        response = await self._call.read()
        return int(response.status)


async def states(front: FrontEnd) -> dict[str, int]:
    listed = await HealthStub(front.channel).List(health_pb2.HealthListRequest(), timeout=LIMIT_S)
    return {name: int(response.status) for name, response in listed.statuses.items()}


async def test_everything_serves_when_a_worker_is_ready(front: FrontEnd) -> None:
    assert await states(front) == dict.fromkeys((*ALWAYS, *WITH_REDIS, MODEL), SERVING)
    check = await HealthStub(front.channel).Check(health_pb2.HealthCheckRequest(service=MODEL))
    assert check.status == SERVING


@pytest.mark.parametrize("service", [SERVICE, INFERENCE, OPERATIONS, ADMIN])
async def test_a_client_that_checks_the_service_it_calls_gets_through(
    front: FrontEnd, service: str
) -> None:
    config = {
        "healthCheckConfig": {"serviceName": service},
        "loadBalancingConfig": [{"round_robin": {}}],
    }
    options = [("grpc.service_config", json.dumps(config))]
    async with grpc.aio.insecure_channel(front.address, options=options) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert (await stub.ServerLive(pb.ServerLiveRequest(), timeout=LIMIT_S)).live


async def test_without_redis_only_the_process_lives(front: FrontEnd) -> None:
    watch = Watch(front, "readiness")
    assert await watch.next() == SERVING
    front.fleet.connect(is_connected=False)
    assert await watch.next() == NOT_SERVING
    assert await states(front) == {
        **dict.fromkeys(ALWAYS, SERVING),
        **dict.fromkeys((*WITH_REDIS, MODEL), NOT_SERVING),
    }
    front.fleet.connect(is_connected=True)
    assert await watch.next() == SERVING


async def test_a_model_without_a_worker_does_not_serve(front: FrontEnd) -> None:
    watch = Watch(front, MODEL)
    assert await watch.next() == SERVING
    front.fleet.set_workers(ready=0, loading=1)
    assert await watch.next() == NOT_SERVING
    assert (await states(front))["readiness"] == SERVING
    front.fleet.set_workers(ready=1)
    assert await watch.next() == SERVING


async def test_a_forgotten_model_is_unknown(front: FrontEnd) -> None:
    watch = Watch(front, MODEL)
    assert await watch.next() == SERVING
    front.fleet.views.clear()
    front.fleet.notice.announce()
    assert await watch.next() == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await HealthStub(front.channel).Check(health_pb2.HealthCheckRequest(service=MODEL))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_health_that_cannot_follow_the_fleet_asks_for_a_restart(front: FrontEnd) -> None:
    watch = Watch(front, "")
    assert await watch.next() == SERVING
    front.fleet.views = None  # type: ignore[assignment]
    front.fleet.notice.announce()
    assert await watch.next() == NOT_SERVING


async def test_reflection_lists_what_is_served(front: FrontEnd) -> None:
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    call = ServerReflectionStub(front.channel).ServerReflectionInfo(iter(requests), timeout=LIMIT_S)
    services, file = [response async for response in call]
    assert {service.name for service in services.list_services_response.service} == {
        SERVICE,
        ADMIN,
        INFERENCE,
        OPERATIONS,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert file.file_descriptor_response.file_descriptor_proto
