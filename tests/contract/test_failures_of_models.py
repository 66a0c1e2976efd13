"""What fails in a stream is counted for the model that was asked, whichever was asked since."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from despacho.job.v1.job_pb2 import FrontEndCard, ModelCard
from dispatch.errors import ImageUndecodable
from inference import grpc_predict_v2_pb2 as oip
from prediction.v1 import prediction_pb2 as pb
from server import error_mapping
from server.tally import Tally
from tests.credentials import Keys
from tests.front_end import LIMIT_S, MODEL, FrontEnd, front_end, view_of
from tests.inference_requests import raw, stub_of

OTHER = "other"


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with front_end() as running:
        running.fleet.views[OTHER] = view_of(ModelCard(name=OTHER, version="1.0"))
        yield running


@pytest.fixture
def tally(monkeypatch: pytest.MonkeyPatch) -> Tally:
    tally = Tally()
    monkeypatch.setattr(error_mapping, "TALLY", tally)
    return tally


def failures(tally: Tally) -> dict[str, dict[str, int]]:
    card = FrontEndCard()
    tally.write_to(card, [MODEL, OTHER])
    return {each.model: dict(each.failures) for each in card.models if each.failures}


def item(image: bytes, model: str) -> pb.PredictStreamRequest:
    return pb.PredictStreamRequest(request=pb.PredictRequest(image=image, model=model))


def asking(image: bytes, model: str) -> oip.ModelInferRequest:
    request = raw(image)
    request.model_name = model
    return request


async def test_each_image_of_a_stream_fails_for_its_own_model(
    front: FrontEnd, tally: Tally
) -> None:
    call = front.stub.PredictStream(timeout=LIMIT_S)

    async def outcome() -> str | None:
        response = await call.read()
        assert isinstance(response, pb.PredictStreamResponse)
        return response.WhichOneof("outcome")

    await call.write(item(b"hold", MODEL))
    await call.write(item(b"good", OTHER))
    assert await outcome() == "response"
    await call.write(pb.PredictStreamRequest())
    assert await outcome() == "failure"
    front.relay.give_up()
    assert await outcome() == "failure"
    await call.done_writing()
    assert failures(tally) == {MODEL: {"DRAINING": 1}, "": {"INVALID_ARGUMENT": 1}}


async def test_each_request_of_an_inference_stream_fails_for_its_own_model(
    front: FrontEnd, tally: Tally
) -> None:
    call = stub_of(front).ModelStreamInfer(timeout=LIMIT_S)
    await call.write(asking(b"hold", MODEL))
    await call.write(asking(b"good", OTHER))
    await call.write(oip.ModelInferRequest())
    await call.done_writing()
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 2)
    front.relay.give_up()
    assert len([each async for each in call]) == 3
    assert failures(tally) == {MODEL: {"DRAINING": 1}, "": {"INVALID_ARGUMENT": 1}}


async def test_a_stream_that_ends_with_a_failure_fails_for_the_model_of_that(
    front: FrontEnd, tally: Tally
) -> None:
    call = stub_of(front).ModelStreamInfer(
        metadata=(("triton_grpc_error", "true"),), timeout=LIMIT_S
    )
    await call.write(asking(b"hold", MODEL))
    await call.write(asking(b"good", OTHER))
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 2)
    front.relay.give_up()
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
    assert failures(tally) == {MODEL: {"DRAINING": 1}}


async def test_a_stream_that_ends_with_a_failure_may_have_been_read_further(
    front: FrontEnd, tally: Tally
) -> None:
    front.relay.failures[b"bad"] = ImageUndecodable("the image is cut short")
    requests = [asking(b"bad", MODEL), *(10 * [asking(b"good", OTHER)])]
    # How far is a matter of luck, mostly too far.
    for _ in range(20):
        call = stub_of(front).ModelStreamInfer(
            iter(requests), metadata=(("triton_grpc_error", "true"),), timeout=LIMIT_S
        )
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
    assert failures(tally) == {MODEL: {"IMAGE_UNDECODABLE": 20}}


async def test_a_gateway_that_asks_whether_keys_are_wanted_is_no_failure(
    tmp_path: Path, tally: Tally
) -> None:
    keys = Keys(tmp_path / "keys.toml")
    keys.add("camera-1", "predict")
    async with front_end(api_keys_file=str(keys.path)) as end:
        for call in (
            end.stub.ListModels(pb.ListModelsRequest(), timeout=LIMIT_S),
            end.stub.GetModel(pb.GetModelRequest(), timeout=LIMIT_S),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert failures(tally) == {"": {"CREDENTIALS_MISSING": 1}}
