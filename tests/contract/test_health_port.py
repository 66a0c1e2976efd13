"""Probes that know neither TLS nor keys."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from deploy.address import free_port
from prediction.v1 import prediction_pb2 as pb
from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from server.binding import CannotListen
from tests.credentials import Authority, Keys
from tests.front_end import LIMIT_S, front_end
from tests.processes import ROOT
from tests.raw_call import message, raw_call
from tests.stoppable import Stoppable

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def guarded(tmp_path: Path) -> dict[str, Any]:
    """Settings with all there is against strangers."""
    authority = Authority(tmp_path)
    server = authority.issue("server", "localhost")
    keys = Keys(tmp_path / "keys.toml")
    keys.add("camera-1", "predict")
    return {
        "tls_cert_file": str(server.cert_file),
        "tls_key_file": str(server.key_file),
        "tls_client_ca_file": str(authority.cert_file),
        "api_keys_file": str(keys.path),
    }


async def container_check(**environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the health check of the image while the front-end of this loop answers."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SERVER_")}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "deploy/docker/server_health.py"],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=4 * LIMIT_S,
        check=False,
    )


async def test_the_check_of_the_container_needs_no_certificate_and_no_key(
    guarded: dict[str, Any],
) -> None:
    probed = f"127.0.0.1:{free_port()}"
    async with front_end(health_address=probed, **guarded) as front:
        done = await container_check(SERVER_ADDRESS=front.address, SERVER_HEALTH_ADDRESS=probed)
        assert (done.returncode, done.stdout) == (0, "SERVING\n")
        front.fleet.connect(is_connected=False)
        done = await container_check(SERVER_ADDRESS=front.address, SERVER_HEALTH_ADDRESS=probed)
        assert (done.returncode, done.stdout) == (1, "NOT_SERVING\n")


async def test_the_check_of_the_container_works_without_that_port_too() -> None:
    async with front_end() as front:
        assert (await container_check(SERVER_ADDRESS=front.address)).returncode == 0
    assert (await container_check(SERVER_ADDRESS=front.address)).returncode == 1


async def test_the_check_of_the_container_takes_no_way_around() -> None:
    # Docker hands on the proxies of its configuration, also to who needs none.
    nobody = f"http://127.0.0.1:{free_port()}"
    async with front_end() as front:
        done = await container_check(
            SERVER_ADDRESS=front.address, http_proxy=nobody, no_proxy="", no_grpc_proxy=""
        )
        assert (done.returncode, done.stdout) == (0, "SERVING\n")


async def test_only_health_is_served_there(guarded: dict[str, Any]) -> None:
    probed = f"127.0.0.1:{free_port()}"
    async with (
        front_end(health_address=probed, **guarded) as front,
        grpc.aio.insecure_channel(probed) as channel,
    ):
        statuses = (await HealthStub(channel).List(health_pb2.HealthListRequest())).statuses
        assert {each.status for each in statuses.values()} == {SERVING}
        call: Any = PredictionServiceStub(channel).Predict(pb.PredictRequest(image=b"photo"))
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert front.relay.submitted == []


async def test_nothing_large_is_received_there() -> None:
    probed = f"127.0.0.1:{free_port()}"
    async with front_end(health_address=probed):
        async with grpc.aio.insecure_channel(probed) as channel:
            for length, code in ((1000, "NOT_FOUND"), (5000, "RESOURCE_EXHAUSTED")):
                request = health_pb2.HealthCheckRequest(service="x" * length)
                call: Any = HealthStub(channel).Check(request, timeout=LIMIT_S)
                assert (await call.code()).name == code
        async with raw_call(probed, "/grpc.health.v1.Health/Check") as raw:
            raw.send(message(bytes(1 << 20))[:100])
            assert b"larger than max" in await raw.until(b"grpc-status")


async def test_it_answers_while_the_server_drains() -> None:
    probed = f"127.0.0.1:{free_port()}"
    context = front_end(health_address=probed, drain_s=LIMIT_S, drain_notice_s=LIMIT_S)
    async with (
        Stoppable(context) as running,
        grpc.aio.insecure_channel(probed) as channel,
        grpc.aio.insecure_channel(running.front.address) as callers,
    ):
        relay = running.front.relay
        health = HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="readiness")
        stub = PredictionServiceStub(callers)
        held: Any = stub.Predict(pb.PredictRequest(image=b"hold"), timeout=LIMIT_S)
        await relay.notice.until(lambda: len(relay.submitted) == 1)
        watch: Any = health.Watch(request, wait_for_ready=True, timeout=LIMIT_S)
        assert (await watch.read()).status == SERVING
        end = running.stop()
        assert (await watch.read()).status == NOT_SERVING
        assert (await health.Check(request, timeout=LIMIT_S)).status == NOT_SERVING
        relay.release_all()
        assert (await held).predictions
        await end


async def test_a_taken_address_is_a_clear_error() -> None:
    async with front_end() as front:
        with pytest.raises(CannotListen, match="in use"):
            async with front_end(health_address=front.address):
                pass
