"""Who may call what, and what the others are told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from prediction.v1 import admin_pb2, admin_pb2_grpc
from prediction.v1 import prediction_pb2 as pb
from server import strangers
from tests.credentials import Keys, bearer
from tests.front_end import LIMIT_S, MODEL, FrontEnd, front_end
from tests.inference_requests import raw, stub_of
from tests.raw_call import message, raw_call
from tests.stack import details_of, reason_of, refusal

IMAGE = pb.PredictRequest(image=b"photo")
LARGE = pb.PredictRequest(image=b"x" * 15 * 1024 * 1024)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.toml")


async def test_a_call_with_a_key_is_answered(keys: Keys) -> None:
    key = keys.add("camera-1", "predict")
    async with front_end(api_keys_file=str(keys.path)) as end:
        for metadata in (
            (("authorization", f"Bearer {key}"),),
            (("authorization", f"bearer {key}"),),
            (("x-api-key", key),),
            # As perf_analyzer sends what stands behind `-H authorization:`.
            (("authorization", f" Bearer {key} "),),
            (("x-api-key", f" {key} "),),
        ):
            response = await end.stub.Predict(IMAGE, metadata=metadata)
            assert response.predictions[0].label == "cat"


@pytest.mark.parametrize("request_", [IMAGE, LARGE], ids=["small", "large"])
async def test_a_call_without_a_key_is_refused(keys: Keys, request_: pb.PredictRequest) -> None:
    keys.add("camera-1", "predict")
    async with front_end(api_keys_file=str(keys.path)) as end:
        error = await refusal(end.stub.Predict(request_))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(error) == "CREDENTIALS_MISSING"
    assert end.relay.submitted == []


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", "Bearer despacho_wrong"),),
        (("authorization", "Basic dXNlcjpwYXNz"),),
        (("authorization", "Bearer "),),
        (("x-api-key", ""),),
        (("x-api-key", "one"), ("authorization", "Bearer other")),
    ],
)
async def test_a_wrong_key_is_refused(keys: Keys, metadata: tuple[tuple[str, str], ...]) -> None:
    keys.add("camera-1", "predict")
    async with front_end(api_keys_file=str(keys.path)) as end:
        error = await refusal(end.stub.Predict(IMAGE, metadata=metadata))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(error) == "CREDENTIALS_INVALID"


async def test_a_good_key_beside_a_wrong_one_is_refused(keys: Keys) -> None:
    key = keys.add("camera-1", "predict")
    async with front_end(api_keys_file=str(keys.path)) as end:
        metadata = (*bearer(key), ("x-api-key", "other"))
        error = await refusal(end.stub.Predict(IMAGE, metadata=metadata))
    assert reason_of(error) == "CREDENTIALS_INVALID"


async def test_a_key_opens_what_it_has_scopes_for(keys: Keys) -> None:
    for name in ("predict", "operations", "admin"):
        keys.add(name, name)
    async with front_end(api_keys_file=str(keys.path)) as end:
        operations = operations_pb2_grpc.OperationsStub(end.channel)
        admin = admin_pb2_grpc.AdminServiceStub(end.channel)
        calls: list[tuple[str, Any, Any]] = [
            ("predict", end.stub.Predict, IMAGE),
            ("operations", end.stub.SubmitPrediction, pb.SubmitPredictionRequest(image=b"x")),
            ("operations", operations.ListOperations, operations_pb2.ListOperationsRequest()),
            ("admin", admin.ListDeadLetters, admin_pb2.ListDeadLettersRequest(model=MODEL)),
        ]
        for scope, method, request in calls:
            await method(request, metadata=bearer(keys[scope]))
            for other in {"predict", "operations", "admin"} - {scope}:
                error = await refusal(method(request, metadata=bearer(keys[other])))
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED
                assert reason_of(error) == "SCOPE_MISSING"
                assert scope in (error.details() or "")


async def test_any_key_may_ask_what_is_served(keys: Keys) -> None:
    key = keys.add("nothing")
    async with front_end(api_keys_file=str(keys.path)) as end:
        models = await end.stub.ListModels(pb.ListModelsRequest(), metadata=bearer(key))
        assert [model.name for model in models.models] == [MODEL]
        assert reason_of(await refusal(end.stub.ListModels(pb.ListModelsRequest()))) == (
            "CREDENTIALS_MISSING"
        )


async def test_health_needs_no_key_and_reflection_does(keys: Keys) -> None:
    key = keys.add("nothing")
    async with front_end(api_keys_file=str(keys.path)) as end:
        health = health_pb2_grpc.HealthStub(end.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

        reflection = reflection_pb2_grpc.ServerReflectionStub(end.channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in reflection.ServerReflectionInfo(iter([question])):
                pass
        assert reason_of(caught.value) == "CREDENTIALS_MISSING"
        call = reflection.ServerReflectionInfo(iter([question]), metadata=bearer(key))
        assert [len(response.list_services_response.service) > 0 async for response in call] == [
            True
        ]


async def test_a_stream_without_a_key_is_refused_before_its_first_message(keys: Keys) -> None:
    keys.add("camera-1", "predict")
    async with front_end(api_keys_file=str(keys.path)) as end:
        call = end.stub.PredictStream()
        assert await asyncio.wait_for(call.code(), LIMIT_S) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_caller_without_a_key_is_refused_before_its_message_is_there(keys: Keys) -> None:
    keys.add("camera-1", "predict")
    async with front_end(api_keys_file=str(keys.path)) as end:
        # To the server a unary call whose caller has not sent anything yet.
        begun: Any = end.channel.stream_unary("/prediction.v1.PredictionService/Predict")()
        assert await asyncio.wait_for(begun.code(), LIMIT_S) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_caller_that_is_too_fast_is_told_when_to_come_back(keys: Keys) -> None:
    key = keys.add("camera-1", "predict", requests_per_s=0.5)
    other = keys.add("camera-2", "predict")
    async with front_end(api_keys_file=str(keys.path)) as end:
        await end.stub.Predict(IMAGE, metadata=bearer(key))
        error = await refusal(end.stub.Predict(IMAGE, metadata=bearer(key)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = details_of(error)
        assert details["ErrorInfo"].reason == "RATE_LIMITED"
        assert 1 < details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() <= 2
        assert [each.subject for each in details["QuotaFailure"].violations] == [
            "key:camera-1/requests_per_s"
        ]
        await end.stub.Predict(IMAGE, metadata=bearer(other))


async def test_calls_at_a_time_are_limited_and_counted_down(keys: Keys) -> None:
    key = keys.add("camera-1", "predict", max_in_flight=1)
    async with front_end(api_keys_file=str(keys.path)) as end:
        held = end.stub.Predict(pb.PredictRequest(image=b"hold"), metadata=bearer(key))
        await end.relay.notice.until(lambda: len(end.relay.submitted) == 1)
        error = await refusal(end.stub.Predict(IMAGE, metadata=bearer(key)))
        assert reason_of(error) == "RATE_LIMITED"
        subjects = [each.subject for each in details_of(error)["QuotaFailure"].violations]
        assert subjects == ["key:camera-1/max_in_flight"]
        held.cancel()
        await end.relay.notice.until(lambda: end.relay.cancelled == [b"hold"])
        await retried(end, key)


async def retried(end: FrontEnd, key: str) -> None:
    """Call until there is room: the end of a call reaches its caller before it is over."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                await end.stub.Predict(IMAGE, metadata=bearer(key))
            except grpc.aio.AioRpcError as error:
                assert reason_of(error) == "RATE_LIMITED"  # noqa: PT017 - others are failures
            else:
                return


async def test_a_call_whose_message_never_comes_counts_until_it_is_gone(keys: Keys) -> None:
    key = keys.add("camera-1", "predict", max_in_flight=1)
    async with front_end(api_keys_file=str(keys.path)) as end:
        # To the server a unary call whose caller has not sent anything yet.
        method: Any = end.channel.stream_unary("/prediction.v1.PredictionService/Predict")
        begun = method(metadata=bearer(key))
        async with asyncio.timeout(LIMIT_S):
            while True:
                if begun.done():  # the other one was first
                    begun = method(metadata=bearer(key))
                try:
                    await end.stub.Predict(IMAGE, metadata=bearer(key))
                except grpc.aio.AioRpcError as error:
                    assert reason_of(error) == "RATE_LIMITED"  # noqa: PT017
                    break
        begun.cancel()
        await retried(end, key)


async def test_the_images_of_a_batch_are_paid_for_afterwards(keys: Keys) -> None:
    key = keys.add("camera-1", "predict", requests_per_s=1)
    async with front_end(api_keys_file=str(keys.path)) as end:
        batch = pb.PredictBatchRequest(images=[pb.BatchImage(image=b"photo")] * 4)
        assert len([item async for item in end.stub.PredictBatch(batch, metadata=bearer(key))]) == 4
        error = await refusal(end.stub.Predict(IMAGE, metadata=bearer(key)))
        delay = details_of(error)["RetryInfo"].retry_delay.ToTimedelta().total_seconds()
        assert 3 < delay <= 4


async def test_the_images_of_a_stream_wait_for_their_turn(keys: Keys) -> None:
    key = keys.add("camera-1", "predict", requests_per_s=20)
    async with front_end(api_keys_file=str(keys.path)) as end:
        await end.stub.Predict(IMAGE, metadata=bearer(key))
        begun = asyncio.get_running_loop().time()

        async def images() -> AsyncIterator[pb.PredictStreamRequest]:
            for number in range(30):
                request = pb.PredictRequest(image=b"photo", request_id=str(number))
                yield pb.PredictStreamRequest(request=request)

        responses = [each async for each in end.stub.PredictStream(images(), metadata=bearer(key))]
        assert len(responses) == 30
        assert all(each.HasField("response") for each in responses)
        # One second's worth is saved up, the other ten wait for their turns.
        assert asyncio.get_running_loop().time() - begun > 0.4


async def test_the_batches_of_a_stream_wait_for_as_long_as_their_images(keys: Keys) -> None:
    key = keys.add("camera-1", "predict", requests_per_s=40)
    async with front_end(api_keys_file=str(keys.path)) as end:
        begun = asyncio.get_running_loop().time()
        requests = iter([raw(*[b"photo"] * 40)] * 4)
        call = stub_of(end).ModelStreamInfer(requests, metadata=bearer(key), timeout=LIMIT_S)
        assert [each.error_message async for each in call] == [""] * 4
        # One batch is saved up, and the last one is paid for by the next call.
        assert asyncio.get_running_loop().time() - begun > 0.9


async def test_a_key_that_is_taken_out_opens_nothing_any_more(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.api_keys.LOOK_S", 0.01)
    old, new = keys.add("old", "predict"), keys.add("new", "predict")
    async with front_end(api_keys_file=str(keys.path)) as end:
        await end.stub.Predict(IMAGE, metadata=bearer(old))
        keys.remove("old")
        async with asyncio.timeout(LIMIT_S):
            error = await first_refusal(end, old)
        assert reason_of(error) == "CREDENTIALS_INVALID"
        await end.stub.Predict(IMAGE, metadata=bearer(new))


async def first_refusal(end: FrontEnd, key: str) -> grpc.aio.AioRpcError:
    while True:
        try:
            await end.stub.Predict(IMAGE, metadata=bearer(key))
        except grpc.aio.AioRpcError as error:
            return error


async def test_operations_belong_to_the_name_of_the_key(keys: Keys) -> None:
    mine, other = keys.add("me", "operations"), keys.add("you", "operations")
    async with front_end(api_keys_file=str(keys.path)) as end:
        operations = operations_pb2_grpc.OperationsStub(end.channel)
        submitted = await end.stub.SubmitPrediction(
            pb.SubmitPredictionRequest(image=b"x"), metadata=bearer(mine)
        )
        assert [each.new.key.caller for each in end.operations.submitted] == ["me"]
        request = operations_pb2.GetOperationRequest(name=submitted.name)
        await operations.GetOperation(request, metadata=bearer(mine))
        error = await refusal(operations.GetOperation(request, metadata=bearer(other)))
        assert reason_of(error) == "OPERATION_NOT_FOUND"
        listed = await operations.ListOperations(
            operations_pb2.ListOperationsRequest(), metadata=bearer(other)
        )
        assert len(listed.operations) == 0


@pytest.mark.parametrize(
    "method",
    [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/inference.GRPCInferenceService/ModelReady",
    ],
)
async def test_half_a_message_that_needs_no_key_is_not_waited_for(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(strangers, "QUICK_S", 0.1)
    # So much longer that all three are there while the first one is waited for.
    monkeypatch.setattr(strangers, "PATIENCE_S", 1.1)
    monkeypatch.setattr(strangers, "MOST_SLOW", 1)
    keys.add("camera-1", "predict")
    half = message(b"x" * 20_000)[:10_000]
    async with front_end(api_keys_file=str(keys.path)) as end, AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(raw_call(end.address, method)) for _ in range(3)]
        for call in calls:
            call.send(half)
        health = health_pb2_grpc.HealthStub(end.channel)
        await health.Check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
        told = [await call.until(b"grpc-message") for call in calls]
        assert sum(b"not complete within" in each for each in told) == 1
        assert sum(b"waits for as many as it may" in each for each in told) == 2


async def test_an_unknown_method_is_unimplemented_with_and_without_a_key(keys: Keys) -> None:
    key = keys.add("camera-1", "predict")
    async with front_end(api_keys_file=str(keys.path)) as end:
        method: Any = end.channel.unary_unary("/prediction.v1.PredictionService/Nothing")
        for metadata in ((), bearer(key)):
            error = await refusal(method(b"", metadata=metadata))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
