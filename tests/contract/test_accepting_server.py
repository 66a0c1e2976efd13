"""Calls are taken in by our own tasks, and several of a busy method at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from server import accepting_server as accepting_server_module
from server.accepting_server import (
    KNOWN_VERSIONS,
    NO_METHOD,
    TAKEN_AT_ONCE,
    accepting_server,
)
from tests.front_end import LIMIT_S

if TYPE_CHECKING:
    from prediction.v1.prediction_pb2_grpc import PredictionServiceAsyncStub

BUSY = "/prediction.v1.PredictionService/Predict"


class Held(PredictionServiceServicer):
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.come = self.ended = 0
        self.release = asyncio.Event()
        self.all_came = asyncio.Event()
        self.awaited = 1

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:  # noqa: N802 - as in the proto
        del context
        self.come += 1
        if self.come == self.awaited:
            self.all_came.set()
        await self.release.wait()
        self.ended += 1
        return pb.PredictResponse(request_id=request.request_id)

    async def ListModels(  # noqa: N802 - as in the proto
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        del request, context
        return pb.ListModelsResponse()


@asynccontextmanager
async def serving(
    service: Held,
) -> AsyncIterator[tuple[grpc.aio.Server, "PredictionServiceAsyncStub"]]:
    server = accepting_server([BUSY], [])
    add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with asyncio.timeout(LIMIT_S), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as to:
            yield server, PredictionServiceStub(to)
    finally:
        await server.stop(None)


def asked() -> Counter[str]:
    """Return of how many calls of each method the tasks of the server ask."""
    coroutines: list[Any] = [task.get_coro() for task in asyncio.all_tasks()]
    return Counter(
        coroutine.cr_frame.f_locals["name"]
        for coroutine in coroutines
        if coroutine.__qualname__.endswith("._accept")
    )


def test_the_pinned_version_is_known() -> None:
    assert grpc.__version__ in KNOWN_VERSIONS


async def test_of_a_busy_method_several_calls_are_asked_for_and_all_are_answered() -> None:
    service = Held()  # type: ignore[abstract] # the others are UNIMPLEMENTED
    service.awaited = 200
    async with serving(service) as (_, stub):
        calls = [stub.Predict(pb.PredictRequest(request_id=str(n))) for n in range(200)]
        await service.all_came.wait()
        counts = asked()
        assert counts[BUSY] == TAKEN_AT_ONCE
        assert counts["/prediction.v1.PredictionService/ListModels"] == 1
        assert counts[NO_METHOD] == 1
        service.release.set()
        assert [(await call).request_id for call in calls] == [str(n) for n in range(200)]


async def test_methods_that_are_not_busy_are_served_as_well() -> None:
    service = Held()  # type: ignore[abstract] # the others are UNIMPLEMENTED
    async with serving(service) as (_, stub):
        await asyncio.gather(*(stub.ListModels(pb.ListModelsRequest()) for _ in range(20)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetModel(pb.GetModelRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_with_an_unknown_version_calls_are_taken_in_by_grpc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accepting_server_module, "KNOWN_VERSIONS", frozenset())
    service = Held()  # type: ignore[abstract] # the others are UNIMPLEMENTED
    service.release.set()
    with capture_logs() as lines:
        async with serving(service) as (_, stub):
            for _ in range(20):
                await stub.Predict(pb.PredictRequest())
            assert asked() == {}
    assert [line["event"] for line in lines] == ["calls are taken in by grpc.aio"]


async def test_calls_are_asked_for_again_if_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = accepting_server_module._Intake._request_registered_call
    failures = [RuntimeError("no memory")] * (TAKEN_AT_ONCE + 10)

    async def asked_for(self: Any, method: bytes) -> Any:
        if failures:
            raise failures.pop()
        return await ask(self, method)

    monkeypatch.setattr(accepting_server_module._Intake, "_request_registered_call", asked_for)
    monkeypatch.setattr(accepting_server_module, "PAUSE_S", 0.01)
    service = Held()  # type: ignore[abstract] # the others are UNIMPLEMENTED
    service.release.set()
    with capture_logs() as lines:
        async with serving(service) as (_, stub):
            await stub.Predict(pb.PredictRequest())
    assert {line["event"] for line in lines} == {"no call could be asked for"}


async def test_calls_end_before_the_server_and_nobody_asks_for_more() -> None:
    service = Held()  # type: ignore[abstract] # the others are UNIMPLEMENTED
    service.awaited = 30
    async with serving(service) as (server, stub):
        calls = [stub.Predict(pb.PredictRequest()) for _ in range(30)]
        await service.all_came.wait()
        stopping = asyncio.create_task(server.stop(LIMIT_S))
        done, _ = await asyncio.wait([stopping], timeout=0.2)
        assert not done
        service.release.set()
        await stopping
        assert service.ended == 30
        # Not all need to have been read: gRPC may reset a connection with the last of them on it.
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = {answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)}
        assert refused <= {grpc.StatusCode.UNAVAILABLE}
        await server.stop(None)  # harmless when repeated
        assert asked() == {}


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
