"""A real Prometheus scrapes the real system under load, and the dashboard has something to show."""

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from tests.gateway import Web
from tests.observability.monitoring import (
    Prometheus,
    alerts,
    metrics_in,
    needs_prometheus,
    prometheus,
    queries,
)
from tests.processes import Process
from tests.redis_server import RedisServer
from tests.stack import Stack, request_for

FREE_PORT = "127.0.0.1:0"
CONNECTIONS = 8
"""That all of them come to the same one of two processes happens once in 128 runs, and then the
figures add up all the same."""

LIMIT_S = 30.0


class Load:
    """Calls until it is stopped, and counts."""

    def __init__(self, stack: Stack, web: Web) -> None:
        self._stack = stack
        self._web = web
        self._is_over = False
        self.answered = 0
        self.failed = 0

    async def label(self) -> None:
        """Send images over a connection; every eighth is none."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        channel = grpc.aio.insecure_channel(self._stack.address, options)
        self._stack.keep(channel)
        stub = PredictionServiceStub(channel)
        for number in itertools.count():
            if self._is_over:
                return
            request = request_for((number % 200, 1, 2))
            if number % 8 == 0:
                request.image = b"no image at all"
            try:
                await stub.Predict(request, timeout=20)
                self.answered += 1
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                    raise
                self.failed += 1

    async def browse(self) -> None:
        """Ask the gateway for what is there, and for what is not."""
        while not self._is_over:
            for path, status in (("/v1/models", 200), ("/nothing/here", 404)):
                response = await asyncio.to_thread(self._web.call, "GET", path)
                assert response.status == status, response.data

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Call while inside; afterwards all calls have ended."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONNECTIONS):
                tasks.create_task(self.label())
            tasks.create_task(self.browse())
            try:
                yield
            finally:
                self._is_over = True


def page_of(process: Process) -> str:
    return process.wait_for_line(r"http://([\w.:]+)/metrics").group(1)


async def start(stack: Stack) -> tuple[dict[str, str], Web]:
    """Start a front-end of two processes, a worker of two, and a gateway.

    Returns:
        Where their figures are, by the job that reads them; and the gateway.
    """
    server = stack.start_server(processes=2, metrics_address=FREE_PORT)
    server.wait_for_line(r'"serving"[^$]*"serving"')
    worker = stack.start_worker(inference_ms=2, processes=2, metrics_address=FREE_PORT)
    await stack.until_ready(workers=2)
    gateway = stack.start(
        ["-m", "gateway"],
        {
            "GATEWAY_ADDRESS": FREE_PORT,
            "GATEWAY_SERVER_ADDRESS": stack.address,
            "GATEWAY_METRICS_ADDRESS": FREE_PORT,
        },
    )
    web = Web(gateway.wait_for_line(r'"address": "([\w.:]+)"').group(1))
    services = {"server": server, "worker": worker, "gateway": gateway}
    return {f"despacho-{name}": page_of(process) for name, process in services.items()}, web


@pytest.fixture
async def stack(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[Stack]:
    stack = Stack(own_redis, tmp_path)
    yield stack
    await stack.close()


def without_data(seen: Prometheus, asked: dict[str, str]) -> dict[str, str]:
    """Return those queries that have no number yet."""
    return {
        name: expression
        for name, expression in asked.items()
        if not any(math.isfinite(float(one["value"][1])) for one in seen.result(expression))
    }


@needs_prometheus
async def test_the_dashboard_has_data_and_the_figures_add_up(stack: Stack, tmp_path: Path) -> None:
    targets, web = await start(stack)
    async with AsyncExitStack() as parts:
        parts.callback(web.close)
        seen = parts.enter_context(prometheus(tmp_path, targets))
        await stack.until(aside(seen.is_ready), LIMIT_S)
        load = Load(stack, web)
        async with load.running():
            await shows_everything(stack, seen, queries())
        await adds_up(stack, seen, load)
        await watches_over_what_is_there(seen)


async def shows_everything(stack: Stack, seen: Prometheus, asked: dict[str, str]) -> None:
    """Wait until each query has returned data."""
    missing = asked

    async def all_have_data() -> bool:
        nonlocal missing
        missing = await asyncio.to_thread(without_data, seen, missing)
        return not missing

    try:
        await stack.until(all_have_data, LIMIT_S)
    except TimeoutError:
        pytest.fail(f"without data: {missing}")


async def adds_up(stack: Stack, seen: Prometheus, load: Load) -> None:
    """Wait until the figures of all processes are those of the callers, and stay so."""
    predict = '{grpc_service="prediction.v1.PredictionService", grpc_method="Predict"}'
    ok, bad = (f'{predict[:-1]}, grpc_code="{code}"}}' for code in ("OK", "INVALID_ARGUMENT"))
    wanted = {
        f"sum(grpc_server_started_total{predict})": load.answered + load.failed,
        f"sum(grpc_server_handling_seconds_count{predict})": load.answered + load.failed,
        f"sum(grpc_server_handled_total{ok})": load.answered,
        f"sum(grpc_server_handled_total{bad})": load.failed,
        "sum(despacho_answer_seconds_count)": load.answered,
        'sum(despacho_failures_total{reason=~"IMAGE_.*"})': load.failed,
        'sum(despacho_images_total{outcome="completed"})': load.answered,
        "sum(despacho_decode_seconds_count)": load.answered,
        "sum(despacho_batch_images_sum)": load.answered,
        'sum(despacho_processes{job="despacho-server"})': 2,
        'sum(despacho_processes{job="despacho-worker"})': 2,
        'max(despacho_workers{state="ready"})': 2,
        "sum(despacho_in_flight_jobs)": 0,
        "sum(despacho_in_hand_jobs)": 0,
        "min(despacho_redis_up)": 1,
        "max(despacho_queue_bytes)": 0,
    }
    found: dict[str, float] = {}

    async def are_right() -> bool:
        nonlocal found
        found = {query: await asyncio.to_thread(seen.number, query) for query in wanted}
        return found == wanted

    try:
        await stack.until(are_right, LIMIT_S)
    except TimeoutError:
        assert found == wanted
    assert load.answered > CONNECTIONS
    assert load.failed >= CONNECTIONS


async def watches_over_what_is_there(seen: Prometheus) -> None:
    """Check that the alerts can be evaluated, and that there is what they look at."""
    for name in sorted({name for rule in alerts() for name in metrics_in(rule["expr"])}):
        assert await asyncio.to_thread(seen.result, name), name
    groups: Any = (await asyncio.to_thread(seen.api, "rules"))["groups"]
    health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert health == dict.fromkeys((rule["alert"] for rule in alerts()), "ok")
    up = await asyncio.to_thread(seen.result, "up")
    assert [one["value"][1] for one in up] == ["1"] * 3


@needs_prometheus
async def test_a_front_end_without_redis_and_workers_is_seen(stack: Stack, tmp_path: Path) -> None:
    server = stack.start_server(metrics_address=FREE_PORT)
    worker = stack.start_worker(metrics_address=FREE_PORT)
    await stack.until_ready()
    with prometheus(tmp_path, targets_of(server, worker)) as seen:
        await stack.until(aside(seen.is_ready), LIMIT_S)

        def pending(alert: str) -> Callable[[], Awaitable[bool]]:
            return aside(lambda: bool(seen.result(f'ALERTS{{alertname="{alert}"}}')))

        await stack.until(aside(lambda: bool(seen.result("despacho_workers"))), LIMIT_S)
        assert not seen.result('ALERTS{alertname="DespachoNoReadyWorker"}')
        worker.kill()
        await stack.until(pending("DespachoNoReadyWorker"), LIMIT_S)
        await stack.until(pending("DespachoTargetDown"), LIMIT_S)
        stack.redis.kill()
        await stack.until(pending("DespachoRedisUnreachable"), LIMIT_S)


def targets_of(server: Process, worker: Process) -> dict[str, str]:
    return {
        "despacho-server": page_of(server),
        "despacho-worker": page_of(worker),
        # Not there: nobody listens at the port of discard.
        "despacho-gateway": "127.0.0.1:9",
    }


def aside(call: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    """Return what asks in a thread, so that the load goes on."""

    async def asked() -> bool:
        return await asyncio.to_thread(call)

    return asked
