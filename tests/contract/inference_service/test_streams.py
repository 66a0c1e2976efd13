"""What callers of `ModelStreamInfer` may rely on."""

import asyncio

import grpc
import pytest

from dispatch import errors
from inference import grpc_predict_v2_pb2 as pb
from inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from tests.front_end import LIMIT_S, FrontEnd, front_end
from tests.inference_requests import raw, streamed, stub_of
from tests.stoppable import Stoppable


async def test_a_stream_is_answered_in_the_order_of_its_requests(front: FrontEnd) -> None:
    call = stub_of(front).ModelStreamInfer(timeout=LIMIT_S)
    await call.write(raw(b"hold", id="1"))
    await call.write(raw(b"quick", id="2"))
    await call.done_writing()
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 2)
    front.relay.release_all()
    responses = [response.infer_response async for response in call]
    assert [response.id for response in responses] == ["1", "2"]
    assert all(each.parameters["triton_final_response"].bool_param for each in responses)


async def test_a_bad_request_in_a_stream_fails_alone(front: FrontEnd) -> None:
    front.relay.failures = {
        b"torn": errors.ImageUndecodable("torn"),
        b"bug": KeyError("secret"),
        b"ours": asyncio.CancelledError(),
    }
    requests = [raw(b"torn", id="1"), raw(b"bug"), raw(b"ours"), raw(), raw(b"good", id="5")]
    *failed, good = await streamed(front, *requests)
    assert [each.error_message.partition(":")[0] for each in failed] == [
        "IMAGE_UNDECODABLE",
        "INTERNAL",
        "INTERNAL",
        "INVALID_ARGUMENT",
    ]
    assert failed[0].infer_response == pb.ModelInferResponse(id="1")
    assert "secret" not in str(failed)
    assert (good.error_message, good.infer_response.id) == ("", "5")


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (errors.ImageUndecodable("torn"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.QueueFull("jobs", "full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (asyncio.CancelledError(), grpc.StatusCode.INTERNAL),
    ],
)
async def test_a_strict_stream_ends_with_the_status_of_the_first_failure(
    front: FrontEnd, failure: BaseException, code: grpc.StatusCode
) -> None:
    front.relay.failures = {b"bad": failure}
    call = stub_of(front).ModelStreamInfer(
        iter([raw(b"hold"), raw(b"bad"), raw(b"good")]),
        metadata=(("triton_grpc_error", "True"),),
        timeout=LIMIT_S,
    )
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 3)
    front.relay.release_all()
    assert isinstance(await call.read(), pb.ModelStreamInferResponse)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is code


async def test_a_stream_that_does_not_ask_for_it_has_no_status(front: FrontEnd) -> None:
    [response] = await streamed(front, raw(), strict="false")
    assert response.error_message


async def test_a_stream_is_not_read_beyond_its_window() -> None:
    async with front_end(stream_window=3) as front:
        held = [raw(f"hold-{number}".encode()) for number in range(5)]
        call = stub_of(front).ModelStreamInfer(iter(held), timeout=LIMIT_S)
        await front.relay.notice.until(lambda: len(front.relay.submitted) == 3)
        # Answered, but behind one that is not.
        front.relay.release(b"hold-1")
        await stub_of(front).ServerLive(pb.ServerLiveRequest(), timeout=LIMIT_S)
        assert len(front.relay.submitted) == 3
        front.relay.release_all()
        assert len([response async for response in call]) == 5


async def test_cancelling_a_stream_cancels_every_image_in_it(front: FrontEnd) -> None:
    call = stub_of(front).ModelStreamInfer(iter([raw(b"hold-1"), raw(b"hold-2")]), timeout=LIMIT_S)
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 2)
    call.cancel()
    await front.relay.notice.until(lambda: sorted(front.relay.cancelled) == [b"hold-1", b"hold-2"])


async def test_a_draining_server_ends_a_stream_and_says_why() -> None:
    # The notice never runs out by itself here: only the last call ends it.
    context = front_end(drain_notice_s=LIMIT_S, drain_s=LIMIT_S)
    async with (
        Stoppable(context) as running,
        grpc.aio.insecure_channel(running.front.address) as channel,
    ):
        call = GRPCInferenceServiceStub(channel).ModelStreamInfer(timeout=LIMIT_S)
        await call.write(raw(b"a", id="1"))
        response = await call.read()
        end = running.stop()
        assert isinstance(response, pb.ModelStreamInferResponse)
        assert response.infer_response.id == "1"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in str(caught.value.details())
        async with asyncio.timeout(LIMIT_S):
            await end
