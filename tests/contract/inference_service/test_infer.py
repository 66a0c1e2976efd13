"""What callers of `ModelInfer` may rely on."""

import struct

import pytest

from dispatch.jobs import Priority
from inference import grpc_predict_v2_pb2 as pb
from tests.front_end import LIMIT_S, MODEL, FrontEnd
from tests.inference_requests import RequestedOutput, classified, infer, raw, typed, whole


async def test_a_raw_request_gets_a_raw_answer(front: FrontEnd) -> None:
    response = await infer(front, raw(b"a", id="order-7"))
    assert (response.model_name, response.model_version, response.id) == (MODEL, "1.0", "order-7")
    assert [(each.name, each.datatype, list(each.shape)) for each in response.outputs] == [
        ("scores", "FP32", [1, 2]),
        ("labels", "BYTES", [1, 1]),
    ]
    assert not any(each.HasField("contents") for each in response.outputs)
    assert list(response.raw_output_contents) == [
        struct.pack("<2f", 0.1, 0.9),
        b"\x03\0\0\0cat",
    ]


async def test_a_typed_request_gets_a_typed_answer(front: FrontEnd) -> None:
    response = await infer(front, typed(b"a", b"b"))
    assert not response.raw_output_contents
    scores, labels = response.outputs
    assert (list(scores.shape), list(labels.shape)) == ([2, 2], [2, 1])
    assert list(scores.contents.fp32_contents) == pytest.approx([0.1, 0.9, 0.1, 0.9])
    assert list(labels.contents.bytes_contents) == [b"cat", b"cat"]


async def test_a_column_of_images_is_as_good_as_a_row(front: FrontEnd) -> None:
    request = raw(b"a", b"b")
    request.inputs[0].shape.append(1)
    await infer(front, request)
    assert sorted(each.image for each in front.relay.submitted) == [b"a", b"b"]


async def test_each_image_is_a_job_of_its_own(front: FrontEnd) -> None:
    await infer(front, raw(b"a", b"b", id="order-7", parameters={"priority": whole(1)}))
    jobs = [each.job for each in front.relay.submitted]
    assert jobs[0] is not jobs[1]
    assert {(each.request_id, each.model) for each in jobs} == {("order-7", MODEL)}
    assert {each.priority for each in front.relay.submitted} == {Priority.HIGH}


async def test_only_what_is_asked_for_is_computed_and_sent(front: FrontEnd) -> None:
    response = await infer(front, raw(b"a", outputs=[RequestedOutput(name="labels")]))
    assert [each.name for each in response.outputs] == ["labels"]
    [submitted] = front.relay.submitted
    assert (submitted.job.top_k, submitted.job.include_scores) == (1, False)


async def test_a_classification_stands_in_the_place_of_the_scores(front: FrontEnd) -> None:
    response = await infer(front, typed(b"a", b"b", outputs=[classified(3)]))
    [output] = response.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("scores", "BYTES", [2, 1])
    assert list(output.contents.bytes_contents) == [b"0.900000:281:cat"] * 2
    assert {each.job.top_k for each in front.relay.submitted} == {3}
    assert not any(each.job.include_scores for each in front.relay.submitted)


async def test_the_empty_name_means_the_only_model(front: FrontEnd) -> None:
    request = raw(b"a")
    request.model_name = ""
    assert (await infer(front, request)).model_name == MODEL


@pytest.mark.parametrize(
    ("number", "meant"),
    [(0, Priority.NORMAL), (1, Priority.HIGH), (2, Priority.NORMAL), (3, Priority.LOW)],
)
async def test_priorities_count_from_one(front: FrontEnd, number: int, meant: Priority) -> None:
    parameter = pb.InferParameter(uint64_param=number)
    await infer(front, raw(b"a", parameters={"priority": parameter}))
    assert front.relay.submitted[0].priority is meant


async def test_the_shorter_of_timeout_and_deadline_counts(front: FrontEnd) -> None:
    for timeout_us in (2_000_000, 60_000_000, 0):
        await infer(front, raw(b"a", parameters={"timeout": whole(timeout_us)}))
    short, long, none = (each.timeout_s for each in front.relay.submitted)
    assert short == 2
    assert 8 < long <= LIMIT_S
    assert 8 < none <= LIMIT_S
