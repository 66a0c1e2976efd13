"""Several front-end processes behind one address.

Everything is real: a Valkey, a parent and its children, a worker process. Only the model
is small.
"""

import asyncio
import json
import os
import re
import signal
import socket
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from prediction.v1 import prediction_pb2
from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from server.binding import CannotListen, reserved
from tests.processes import Process
from tests.stack import SERVER, Colour, Stack, colour_of, request_for

if TYPE_CHECKING:
    from prediction.v1.prediction_pb2_grpc import PredictionServiceAsyncStub

LIMIT_S = 20.0
CONNECTIONS = 16
"""That all of them come to the same one of two processes happens once in 32,768 runs."""


def start(stack: Stack, command: Sequence[str] = SERVER, /, **settings: object) -> Process:
    parent = stack.start_server(command, processes=2, **settings)
    parent.wait_for_line(r'"serving"[^$]*"serving"')
    return parent


def children_of(parent: Process) -> list[int]:
    lines = [json.loads(line) for line in parent.log.splitlines() if line.startswith("{")]
    return [line["process_id"] for line in lines if line["event"] == "process started"]


async def until_ready(stack: Stack) -> "list[PredictionServiceAsyncStub]":
    """Return stubs with a connection each, once the process of each knows a ready worker."""
    made = stubs(stack)

    async def is_ready(stub: "PredictionServiceAsyncStub") -> bool:
        try:
            found = await stub.GetModel(prediction_pb2.GetModelRequest(name=stack.model))
        except grpc.aio.AioRpcError:
            return False
        return found.model.live_workers == 1

    async def are_ready() -> bool:
        return all(await asyncio.gather(*map(is_ready, made)))

    await stack.until(are_ready, LIMIT_S)
    return made


def stubs(stack: Stack) -> "list[PredictionServiceAsyncStub]":
    """Return stubs with a connection each."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    channels = [grpc.aio.insecure_channel(stack.address, options) for _ in range(CONNECTIONS)]
    stack.keep(*channels)
    return [PredictionServiceStub(channel) for channel in channels]


def colours() -> list[Colour]:
    return [(1, 1 + i, 77) for i in range(CONNECTIONS)]


async def ask(
    stack: Stack,
) -> "list[asyncio.Task[prediction_pb2.PredictResponse | BaseException]]":
    """Ask for an image over each connection; return when all are accepted."""

    async def predict(
        stub: "PredictionServiceAsyncStub", colour: Colour
    ) -> prediction_pb2.PredictResponse | BaseException:
        try:
            return await stub.Predict(request_for(colour), timeout=30)
        except grpc.aio.AioRpcError as error:
            return error

    asked = zip(await until_ready(stack), colours(), strict=True)
    tasks = [asyncio.create_task(predict(stub, colour)) for stub, colour in asked]
    await stack.until(lambda: stack.totals().get("accepted") == CONNECTIONS, LIMIT_S)
    return tasks


async def test_the_calls_of_a_killed_process_fail_and_those_of_others_go_on(stack: Stack) -> None:
    parent = start(stack)
    stack.start_worker(inference_ms=500)
    asked = await ask(stack)
    victim = children_of(parent)[0]
    os.kill(victim, signal.SIGKILL)
    answers = await asyncio.gather(*asked)
    failed = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    answered = {
        colour: answer
        for colour, answer in zip(colours(), answers, strict=True)
        if isinstance(answer, prediction_pb2.PredictResponse)
    }
    assert {error.code() for error in failed} == {grpc.StatusCode.UNAVAILABLE}
    assert answered
    assert [colour_of(answer) for answer in answered.values()] == list(answered)
    # A third one takes its place.
    await stack.until(lambda: len(children_of(parent)) == 3, LIMIT_S)
    parent.wait_for_line(r'"serving"[^$]*"serving"[^$]*"serving"')
    assert len({*children_of(parent)}) == 3
    await until_ready(stack)


IMPATIENT = """
import runpy
from supervision import supervisor

supervisor.SILENCE_LIMIT_S = 4
runpy.run_module("server", run_name="__main__", alter_sys=True)
"""


async def test_a_process_that_is_stuck_is_replaced_and_the_others_are_not(stack: Stack) -> None:
    parent = start(stack, ["-c", IMPATIENT])
    victim, other = children_of(parent)
    os.kill(victim, signal.SIGSTOP)
    found = parent.wait_for_line(r'{[^}]*"process is stuck; killing it"[^}]*}').group()
    assert json.loads(found)["process_id"] == victim
    parent.wait_for_line(r'"serving"[^$]*"serving"[^$]*"serving"')
    assert len(children_of(parent)) == 3
    assert parent.log.count("killing it") == 1
    os.kill(other, 0)


async def test_sigterm_lets_all_processes_end_their_calls(stack: Stack) -> None:
    parent = start(stack)
    stack.start_worker(inference_ms=500)
    asked = await ask(stack)
    parent.send(signal.SIGTERM)
    assert [colour_of(each) for each in await asyncio.gather(*asked)] == colours()  # type: ignore[arg-type] # no error
    assert parent.wait() == 0
    assert stack.entries() == 0
    lines = [json.loads(line) for line in parent.log.splitlines() if '"call"' in line]
    predicted = {line["process_id"] for line in lines if line["method"].endswith("/Predict")}
    assert len(predicted) == 2  # both had some


async def test_a_killed_parent_takes_its_processes_along(stack: Stack) -> None:
    parent = start(stack)
    parent.kill()  # waits until nobody has its log open any more
    with reserved(stack.address):
        pass


async def test_a_taken_port_is_refused_with_several_processes_too(stack: Stack) -> None:
    start(stack)
    settings = {"REDIS_URL": stack.redis.url, "SERVER_ADDRESS": stack.address}
    for processes in (1, 2):
        second = stack.start(["-m", "server", "--processes", str(processes)], settings)
        assert second.wait() == 2
        assert f"server: cannot listen on {stack.address}" in second.log
        assert '"serving"' not in second.log
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CannotListen):
        reserved(f"127.0.0.1:{taken.getsockname()[1]}").__enter__()


def test_an_address_that_a_name_has_twice_is_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [found, found])
    with reserved("twice.test:0") as address:
        assert address.startswith("twice.test:")


async def test_the_figures_of_all_processes_add_up(stack: Stack) -> None:
    # Its own limit: the timer of a caller might end first, and then the call is cancelled.
    limits = {"max_deadline_s": 1, "no_worker_grace_s": 30}
    parent = start(stack, metrics_address="127.0.0.1:0", **limits)
    worker = stack.start_worker(inference_ms=0)
    ready = await until_ready(stack)
    assert worker.terminate() == 0
    requests = [
        stub.Predict(request_for(colour), timeout=30)
        for stub, colour in zip(ready, colours(), strict=True)
    ]
    failed = await asyncio.gather(*requests, return_exceptions=True)
    assert all(isinstance(each, grpc.aio.AioRpcError) for each in failed)
    await stack.until(lambda: stack.totals().get("expired") == CONNECTIONS, LIMIT_S)
    [address] = re.findall(r'"url": "http://([^"]+)"', parent.log)

    def avoided() -> float:
        with urllib.request.urlopen(f"http://{address}", timeout=5) as page:
            text = page.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "despacho_work_avoided_total" and sample.labels["cause"] == "expired"
        )

    await stack.until(lambda: avoided() == CONNECTIONS, LIMIT_S)
