"""What callers of `ListOperations` may rely on."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2 as lro
from google.longrunning.operations_pb2_grpc import OperationsStub

from despacho.job.v1 import job_pb2
from prediction.v1 import prediction_pb2 as pb
from tests.front_end import LIMIT_S, MODEL, FrontEnd, front_end, view_of
from tests.stack import details_of, reason_of


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with front_end() as running:
        yield running


def operations(front: FrontEnd) -> Any:
    return OperationsStub(front.channel)


async def failure_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_list_has_pages_over_all_models(front: FrontEnd) -> None:
    front.fleet.views["b"] = view_of(job_pb2.ModelCard(name="b"))
    names = []
    for model in (MODEL, "b", MODEL, "b", MODEL):
        request = pb.SubmitPredictionRequest(model=model, image=b"image")
        names.append((await front.stub.SubmitPrediction(request, timeout=LIMIT_S)).name)
    stub, found, token = operations(front), [], ""
    while True:
        request = lro.ListOperationsRequest(name="models/-", page_size=2, page_token=token)
        page = await stub.ListOperations(request, timeout=LIMIT_S)
        assert len(page.operations) <= 2
        found += [operation.name for operation in page.operations]
        if not (token := page.next_page_token):
            break
    assert sorted(found) == sorted(names)
    # A page that ends in the midst of a model goes on there, and has no more than was asked for.
    request = lro.ListOperationsRequest(name="models/-", page_size=1)
    page = await stub.ListOperations(request, timeout=LIMIT_S)
    request = lro.ListOperationsRequest(page_size=3, page_token=page.next_page_token)
    rest = await stub.ListOperations(request, timeout=LIMIT_S)
    assert [each.name for each in (*page.operations, *rest.operations)] == found[:4]
    only = await stub.ListOperations(lro.ListOperationsRequest(name="models/b"), timeout=LIMIT_S)
    assert [each.name for each in only.operations] == [names[3], names[1]]


async def test_a_page_over_all_models_is_small_enough_for_callers(front: FrontEnd) -> None:
    names = []
    for model in "abc":
        front.fleet.views[model] = view_of(job_pb2.ModelCard(name=model))
        request = pb.SubmitPredictionRequest(model=model, image=b"image")
        names.append((await front.stub.SubmitPrediction(request, timeout=LIMIT_S)).name)
    large = job_pb2.Reply(answer=job_pb2.Answer(model_version="1" * 1_500_000))
    for key in list(front.operations.kept):
        front.operations.end(key, large)
    stub, token = operations(front), ""
    found: list[list[str]] = []
    while not found or token:
        request = lro.ListOperationsRequest(name="models/-", page_size=1000, page_token=token)
        page = await stub.ListOperations(request, timeout=LIMIT_S)
        found.append([operation.name for operation in page.operations])
        token = page.next_page_token
    assert found == [names[:2], names[2:]]


async def test_an_operation_needs_no_model_in_its_name(front: FrontEnd) -> None:
    front.fleet.views["b"] = view_of(job_pb2.ModelCard(name="b"))
    request = pb.SubmitPredictionRequest(model="b", image=b"image")
    submitted = await front.stub.SubmitPrediction(request, timeout=LIMIT_S)
    stub, name = operations(front), f"models/-/operations/{submitted.name.rpartition('/')[2]}"
    found = await stub.GetOperation(lro.GetOperationRequest(name=name), timeout=LIMIT_S)
    assert found.name == submitted.name
    await stub.CancelOperation(lro.CancelOperationRequest(name=name), timeout=LIMIT_S)
    waited = await stub.WaitOperation(lro.WaitOperationRequest(name=name), timeout=LIMIT_S)
    assert (waited.name, waited.done) == (submitted.name, True)
    await stub.DeleteOperation(lro.DeleteOperationRequest(name=name), timeout=LIMIT_S)
    assert not front.operations.kept
    error = await failure_of(stub.GetOperation(lro.GetOperationRequest(name=name), timeout=LIMIT_S))
    assert reason_of(error) == "OPERATION_NOT_FOUND"


async def test_there_is_no_list_over_models_that_nobody_knows(front: FrontEnd) -> None:
    request = pb.SubmitPredictionRequest(model=MODEL, image=b"image")
    await front.stub.SubmitPrediction(request, timeout=LIMIT_S)
    front.fleet.connect(is_connected=False)
    for name in ("", "models/-"):
        request = lro.ListOperationsRequest(name=name)
        error = await failure_of(operations(front).ListOperations(request, timeout=LIMIT_S))
        assert reason_of(error) == "BROKER_UNAVAILABLE"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "operations"}, "name"),
        ({"filter": "done=true"}, "filter"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "rubbish"}, "page_token"),
        ({"page_token": "cnViYmlzaA=="}, "page_token"),
    ],
)
async def test_a_bad_list_request_names_the_field(
    front: FrontEnd, change: dict[str, Any], field: str
) -> None:
    request = lro.ListOperationsRequest(**change)
    error = await failure_of(operations(front).ListOperations(request, timeout=LIMIT_S))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details_of(error)["BadRequest"].field_violations[0].field == field
