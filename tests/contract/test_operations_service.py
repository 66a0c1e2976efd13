"""What callers of `SubmitPrediction` and `google.longrunning.Operations` may rely on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.longrunning import operations_pb2 as lro
from google.longrunning.operations_pb2_grpc import OperationsStub
from google.protobuf.duration_pb2 import Duration

from despacho.job.v1 import job_pb2
from dispatch import errors
from dispatch.operations import OperationKey
from prediction.v1 import prediction_pb2 as pb
from server.call_record import ANONYMOUS
from tests.front_end import LIMIT_S, MODEL, FrontEnd, front_end
from tests.stack import details_of, details_of_status, reason_of

REQUEST = pb.SubmitPredictionRequest(model=MODEL, image=b"image", top_k=3)


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with front_end() as running:
        yield running


def operations(front: FrontEnd) -> Any:
    return OperationsStub(front.channel)


def key_of(operation: lro.Operation) -> OperationKey:
    return OperationKey(MODEL, operation.name.rpartition("/")[2], ANONYMOUS)


def metadata_of(operation: lro.Operation) -> pb.PredictionMetadata:
    metadata = pb.PredictionMetadata()
    assert operation.metadata.Unpack(metadata)
    return metadata


def answer(job_id: str = "") -> job_pb2.Reply:
    said = job_pb2.Answer(model_version="1.0", labels=[job_pb2.Label(name="cat", score=0.9)])
    return job_pb2.Reply(job_id=job_id, worker="worker-1", attempt=2, answer=said)


async def answer_of(call: Any) -> Any:
    return await call


async def failure_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def waited(stub: Any, request: lro.WaitOperationRequest) -> lro.Operation:
    """Return the answer to a call with little time.

    It comes 20 ms before the end of that. A machine that stands still then is no fault of the
    front-end, and is tried again.
    """
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                return await stub.WaitOperation(request, timeout=0.3)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise


async def test_a_submission_is_answered_with_an_operation_that_waits(front: FrontEnd) -> None:
    request_id = str(uuid4())
    request = pb.SubmitPredictionRequest(
        image=b"image", top_k=3, include_scores=True, request_id=request_id.upper()
    )
    operation = await front.stub.SubmitPrediction(request, timeout=LIMIT_S)
    assert operation.name.startswith(f"models/{MODEL}/operations/")
    assert not operation.done
    metadata = metadata_of(operation)
    assert metadata.state == pb.PREDICTION_STATE_QUEUED
    assert metadata.request_id == request_id
    assert metadata.estimated_position == 1
    assert metadata.create_time.ToMilliseconds() == 1_700_000_000_000
    assert metadata.expire_time.ToMilliseconds() == 1_700_007_200_000
    (seen,) = front.operations.submitted
    assert (seen.new.job.top_k, seen.new.job.include_scores, seen.new.image) == (3, True, b"image")
    assert not seen.is_synced


async def test_the_wished_durability_is_passed_on(front: FrontEnd) -> None:
    request = pb.SubmitPredictionRequest(image=b"image", durability=pb.DURABILITY_SYNCED)
    await front.stub.SubmitPrediction(request, timeout=LIMIT_S)
    assert front.operations.submitted[0].is_synced


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"request_id": "not a uuid"}, "INVALID_ARGUMENT"),
        ({"durability": 77}, "INVALID_ARGUMENT"),
        ({"top_k": 1001}, "INVALID_ARGUMENT"),
        ({"image": b""}, "IMAGE_EMPTY"),
        ({"model": "nobody"}, "MODEL_NOT_FOUND"),
    ],
)
async def test_a_bad_submission_is_refused_before_it_is_accepted(
    front: FrontEnd, change: dict[str, Any], reason: str
) -> None:
    request = pb.SubmitPredictionRequest(**{"model": MODEL, "image": b"image", **change})
    error = await failure_of(front.stub.SubmitPrediction(request, timeout=LIMIT_S))
    assert reason_of(error) == reason
    assert not front.operations.submitted


@pytest.mark.parametrize(
    ("refusal", "code", "details"),
    [
        (
            errors.RequestIdReused("other content"),
            grpc.StatusCode.ALREADY_EXISTS,
            {"ErrorInfo"},
        ),
        (
            errors.DurabilityUnavailable("too old"),
            grpc.StatusCode.FAILED_PRECONDITION,
            {"ErrorInfo"},
        ),
        (
            errors.QueueFull("model:m/operations", "full", retry_after_s=2),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            {"ErrorInfo", "RetryInfo", "QuotaFailure"},
        ),
        (
            errors.BrokerUnavailable("away"),
            grpc.StatusCode.UNAVAILABLE,
            {"ErrorInfo", "RetryInfo"},
        ),
    ],
)
async def test_a_refusal_tells_what_to_do_next(
    front: FrontEnd, refusal: errors.DespachoError, code: grpc.StatusCode, details: set[str]
) -> None:
    front.operations.failure = refusal
    error = await failure_of(front.stub.SubmitPrediction(REQUEST, timeout=LIMIT_S))
    assert error.code() is code
    assert reason_of(error) == refusal.reason
    assert set(details_of(error)) == details


async def test_submissions_that_this_server_has_no_room_for_are_refused() -> None:
    async with front_end(max_receiving_bytes=10) as front:
        submit, begun = front.operations.submit, asyncio.Semaphore(0)

        async def held(*arguments: Any, **options: Any) -> Any:
            del arguments, options
            begun.release()
            await asyncio.Event().wait()

        front.operations.submit = held  # type: ignore[method-assign]
        calls = [front.stub.SubmitPrediction(REQUEST, timeout=LIMIT_S) for _ in range(2)]
        async with asyncio.timeout(LIMIT_S):
            await begun.acquire()
            await begun.acquire()
        front.operations.submit = submit  # type: ignore[method-assign]
        error = await failure_of(front.stub.SubmitPrediction(REQUEST, timeout=LIMIT_S))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(error) == "QUEUE_FULL"
        details = details_of(error)
        assert details["QuotaFailure"].violations[0].subject == "server/receiving"
        assert "RetryInfo" in details
        for call in calls:
            call.cancel()
        async with asyncio.timeout(LIMIT_S):
            while not front.operations.submitted:  # until the server has heard of it
                with suppress(grpc.aio.AioRpcError):
                    await front.stub.SubmitPrediction(REQUEST)
        # What was accepted makes room.
        for _ in range(3):
            await front.stub.SubmitPrediction(REQUEST, timeout=LIMIT_S)


async def test_an_operation_that_ended_well_has_the_labels(front: FrontEnd) -> None:
    submitted = await front.stub.SubmitPrediction(REQUEST, timeout=LIMIT_S)
    front.operations.end(key_of(submitted), answer())
    operation = await operations(front).GetOperation(
        lro.GetOperationRequest(name=submitted.name), timeout=LIMIT_S
    )
    response = pb.PredictResponse()
    assert operation.done
    assert operation.response.Unpack(response)
    assert response.predictions[0].label == "cat"
    assert response.timing.attempt == 2
    assert response.timing.total.ToMilliseconds() == 2500
    metadata = metadata_of(operation)
    assert metadata.state == pb.PREDICTION_STATE_DONE
    assert metadata.attempt == 2
    assert metadata.end_time.ToMilliseconds() == 1_700_000_002_500


async def test_an_operation_that_failed_has_the_error_that_a_call_would_have_had(
    front: FrontEnd,
) -> None:
    submitted = await front.stub.SubmitPrediction(REQUEST, timeout=LIMIT_S)
    failure = job_pb2.Failure(reason="IMAGE_UNDECODABLE", message="cut short")
    front.operations.end(key_of(submitted), job_pb2.Reply(attempt=1, failure=failure))
    operation = await operations(front).GetOperation(
        lro.GetOperationRequest(name=submitted.name), timeout=LIMIT_S
    )
    assert operation.WhichOneof("result") == "error"
    assert operation.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    details = details_of_status(operation.error)
    assert details["ErrorInfo"].reason == "IMAGE_UNDECODABLE"
    assert details["BadRequest"].field_violations[0].field == "image"


async def test_waiting_returns_when_the_operation_ends(front: FrontEnd) -> None:
    submitted = await front.stub.SubmitPrediction(REQUEST, timeout=LIMIT_S)
    request = lro.WaitOperationRequest(name=submitted.name)
    call = asyncio.ensure_future(answer_of(operations(front).WaitOperation(request)))
    await front.operations.notice.until(lambda: front.operations.waiting == 1)
    front.operations.end(key_of(submitted), answer())
    async with asyncio.timeout(LIMIT_S):
        assert (await call).done


@pytest.mark.parametrize(
    "wish",
    [Duration(seconds=2**62), Duration(seconds=2**62, nanos=2**31 - 1), None],
    ids=["huge", "with rubbish", "absent"],
)
async def test_a_wait_that_wishes_for_ever_lasts_as_long_as_its_call(
    front: FrontEnd, wish: Duration | None
) -> None:
    submitted = await front.stub.SubmitPrediction(REQUEST, timeout=LIMIT_S)
    stub = operations(front)
    request = lro.WaitOperationRequest(name=submitted.name, timeout=wish)
    assert not (await waited(stub, request)).done
    before = front.operations.waiting
    call = asyncio.ensure_future(answer_of(stub.WaitOperation(request, timeout=LIMIT_S)))
    await front.operations.notice.until(lambda: front.operations.waiting > before)
    # Had it been answered at once, the answer would be here before that to a later call.
    await stub.GetOperation(lro.GetOperationRequest(name=submitted.name), timeout=LIMIT_S)
    assert not call.done()
    front.operations.end(key_of(submitted), answer())
    assert (await call).done


@pytest.mark.parametrize(
    "wish", [Duration(), Duration(seconds=-(2**62)), Duration(nanos=-1)], ids=str
)
async def test_a_wait_that_wishes_for_no_time_tells_what_there_is_at_once(
    front: FrontEnd, wish: Duration
) -> None:
    submitted = await front.stub.SubmitPrediction(REQUEST, timeout=LIMIT_S)
    request = lro.WaitOperationRequest(name=submitted.name, timeout=wish)
    async with asyncio.timeout(LIMIT_S / 2):
        operation = await operations(front).WaitOperation(request, timeout=LIMIT_S)
    assert operation.name == submitted.name
    assert not operation.done


async def test_waiting_returns_what_there_is_when_its_time_is_over(front: FrontEnd) -> None:
    submitted = await front.stub.SubmitPrediction(REQUEST, timeout=LIMIT_S)
    stub = operations(front)
    short = lro.WaitOperationRequest(name=submitted.name, timeout=Duration(nanos=1_000_000))
    assert not (await stub.WaitOperation(short, timeout=LIMIT_S)).done
    # Before the caller's own deadline, so that the caller gets the operation and no error.
    assert not (await waited(stub, lro.WaitOperationRequest(name=submitted.name))).done


async def test_a_cancelled_operation_says_so(front: FrontEnd) -> None:
    submitted = await front.stub.SubmitPrediction(REQUEST, timeout=LIMIT_S)
    stub = operations(front)
    for _ in range(2):  # harmless when repeated
        await stub.CancelOperation(lro.CancelOperationRequest(name=submitted.name), timeout=LIMIT_S)
    operation = await stub.GetOperation(
        lro.GetOperationRequest(name=submitted.name), timeout=LIMIT_S
    )
    assert operation.error.code == grpc.StatusCode.CANCELLED.value[0]


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("GetOperation", lro.GetOperationRequest),
        ("WaitOperation", lro.WaitOperationRequest),
        ("CancelOperation", lro.CancelOperationRequest),
        ("DeleteOperation", lro.DeleteOperationRequest),
    ],
)
async def test_an_operation_that_is_not_there_is_not_found(
    front: FrontEnd, method: str, request_type: Any
) -> None:
    call = getattr(operations(front), method)
    name = f"models/{MODEL}/operations/0123456789abcdef"
    error = await failure_of(call(request_type(name=name), timeout=LIMIT_S))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert reason_of(error) == "OPERATION_NOT_FOUND"
    info = details_of(error)["ResourceInfo"]
    assert (info.resource_type, info.resource_name) == ("operation", name)
    for nonsense in ("", "x", "models/M/operations/a", f"models/{MODEL}/deadLetters/1-0"):
        error = await failure_of(call(request_type(name=nonsense), timeout=LIMIT_S))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_deleted_operation_is_gone(front: FrontEnd) -> None:
    submitted = await front.stub.SubmitPrediction(REQUEST, timeout=LIMIT_S)
    stub = operations(front)
    await stub.DeleteOperation(lro.DeleteOperationRequest(name=submitted.name), timeout=LIMIT_S)
    call = stub.GetOperation(lro.GetOperationRequest(name=submitted.name), timeout=LIMIT_S)
    assert (await failure_of(call)).code() is grpc.StatusCode.NOT_FOUND
