"""Several calls of a busy method are taken in at once, as any call is otherwise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from structlog.testing import capture_logs

from prediction.v1 import prediction_pb2 as pb
from prediction.v1.prediction_pb2_grpc import (
    PredictionServiceServicer,
    PredictionServiceStub,
    add_PredictionServiceServicer_to_server,
)
from server import accepting_server
from server.accepting_server import KNOWN_VERSIONS, AcceptingServer
from tests.front_end import LIMIT_S

if TYPE_CHECKING:
    from prediction.v1.prediction_pb2_grpc import PredictionServiceAsyncStub

BUSY = "/prediction.v1.PredictionService/Predict"


class Held(PredictionServiceServicer):
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.come = 0
        self.release = asyncio.Event()
        self.all_came = asyncio.Event()
        self.awaited = 1

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:  # noqa: N802 - as in the proto
        del context
        self.come += 1
        if self.come == self.awaited:
            self.all_came.set()
        await self.release.wait()
        return pb.PredictResponse(request_id=request.request_id)

    async def ListModels(  # noqa: N802 - as in the proto
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        del request, context
        return pb.ListModelsResponse()


@asynccontextmanager
async def serving(
    service: Held,
) -> AsyncIterator[tuple[AcceptingServer, "PredictionServiceAsyncStub"]]:
    server = AcceptingServer([BUSY], [])
    add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with asyncio.timeout(LIMIT_S), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as to:
            yield server, PredictionServiceStub(to)
    finally:
        await server.stop(None)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return where the methods of calls are noted that the tasks of the server take in."""
    methods: list[str] = []
    cygrpc: Any = accepting_server.cygrpc  # type: ignore[attr-defined]

    def handle(method: str, *rest: Any) -> Any:
        methods.append(method)
        return cygrpc._handle_rpc(method, *rest)

    used = SimpleNamespace(
        _MethodResolver=cygrpc._MethodResolver,
        _schedule_rpc_coro=cygrpc._schedule_rpc_coro,
        _handle_rpc=handle,
    )
    monkeypatch.setattr(accepting_server, "cygrpc", used)
    return methods


def test_the_pinned_version_is_known() -> None:
    assert grpc.__version__ in KNOWN_VERSIONS


async def test_of_many_calls_grpc_takes_in_few_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = counted(monkeypatch)
    service = Held()  # type: ignore[abstract] # the others are UNIMPLEMENTED
    service.awaited = 200
    async with serving(service) as (_, stub):
        calls = [stub.Predict(pb.PredictRequest(request_id=str(n))) for n in range(200)]
        await service.all_came.wait()
        service.release.set()
        assert [(await call).request_id for call in calls] == [str(n) for n in range(200)]
    # Those who ask take turns, and grpc.aio is one of seventeen.
    assert len(methods) > 150
    assert set(methods) == {BUSY}


async def test_methods_that_are_not_busy_are_served_as_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    methods = counted(monkeypatch)
    service = Held()  # type: ignore[abstract] # the others are UNIMPLEMENTED
    async with serving(service) as (_, stub):
        for _ in range(20):
            await stub.ListModels(pb.ListModelsRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetModel(pb.GetModelRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert methods == []


async def test_with_an_unknown_version_calls_are_taken_in_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    methods = counted(monkeypatch)
    monkeypatch.setattr(accepting_server, "KNOWN_VERSIONS", frozenset())
    service = Held()  # type: ignore[abstract] # the others are UNIMPLEMENTED
    service.release.set()
    with capture_logs() as lines:
        async with serving(service) as (_, stub):
            for _ in range(20):
                await stub.Predict(pb.PredictRequest())
    assert methods == []
    assert [line["event"] for line in lines] == ["calls are taken in one by one"]


async def test_calls_end_before_the_server_and_nobody_asks_for_more() -> None:
    service = Held()  # type: ignore[abstract] # the others are UNIMPLEMENTED
    service.awaited = 30
    tasks = asyncio.all_tasks()
    async with serving(service) as (server, stub):
        calls = [stub.Predict(pb.PredictRequest()) for _ in range(30)]
        await service.all_came.wait()
        stopping = asyncio.create_task(server.stop(LIMIT_S))
        assert server.is_running()
        service.release.set()
        for call in calls:
            await call
        await stopping
        assert not server.is_running()
        await server.stop(None)  # harmless when repeated
    assert {task for task in asyncio.all_tasks() - tasks if "accept" in repr(task)} == set()


async def test_a_caller_who_goes_away_cancels_its_call() -> None:
    cancelled = asyncio.Event()

    class Patient(Held):
        async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:  # noqa: N802 - as in the proto
            try:
                return await super().Predict(request, context)
            except asyncio.CancelledError:
                cancelled.set()
                raise

    service = Patient()  # type: ignore[abstract]
    service.awaited = 20
    async with serving(service) as (_, stub):
        calls = [stub.Predict(pb.PredictRequest()) for _ in range(20)]
        await service.all_came.wait()
        for call in calls:
            call.cancel()
        await cancelled.wait()
