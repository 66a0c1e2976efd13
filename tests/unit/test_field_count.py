"""Large messages are counted before they are parsed."""

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatch.errors import InvalidArgument
from inference import grpc_predict_v2_pb2 as oip
from prediction.v1 import prediction_pb2 as pb
from server import field_count
from server.field_count import LARGE_BYTES, MAX_FIELDS, check_field_count
from server.inference_request import MAX_IMAGES
from server.interceptor import parser
from server.validation import MAX_BATCH_IMAGES
from tests.fuzz.messages import messages

MANY = LARGE_BYTES
LENGTH = 2


def varint(number: int) -> bytes:
    low = b""
    while number > 0x7F:
        low += bytes([number & 0x7F | 0x80])
        number >>= 7
    return low + bytes([number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | LENGTH) + varint(len(content)) + content


def check(message: bytes, kind: Any) -> None:
    check_field_count(message, kind.DESCRIPTOR)


@pytest.mark.parametrize(
    ("kind", "message", "name"),
    [
        (pb.PredictBatchRequest, field(2, b"") * MANY, "images"),
        (pb.PredictBatchRequest, field(2, field(2, b"") * MANY), "images"),
        (pb.PredictStreamRequest, field(1, b"") * MANY, "request"),
        (pb.PredictRequest, field(1, b"x") + field(99, b"") * MANY, "request"),
        (oip.ModelInferRequest, field(5, b"") * MANY, "inputs"),
        (oip.ModelInferRequest, field(7, b"") * MANY, "raw_input_contents"),
        (oip.ModelInferRequest, field(5, field(5, field(8, b"") * MANY)), "inputs"),
        (oip.ModelInferRequest, field(5, field(3, bytes(2 << 20))), "inputs"),
        (oip.ModelInferRequest, field(5, b"\x18\x00" * MANY), "inputs"),
        # Written with more bytes than a tag needs.
        (pb.PredictBatchRequest, b"\x92\x80\x00\x00" * MANY, "images"),
    ],
)
def test_what_is_made_of_too_many_parts_is_not_parsed(kind: Any, message: bytes, name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"more than {MAX_FIELDS} fields") as caught:
        parser(kind.FromString)(message)
    assert caught.value.field == name


@pytest.mark.parametrize(
    "message",
    [
        pb.PredictRequest(image=bytes(16 << 20), request_id="x" * 128, top_k=5),
        pb.PredictBatchRequest(
            images=[pb.BatchImage(image=bytes(60_000), request_id="x" * 128)] * MAX_BATCH_IMAGES
        ),
        oip.ModelInferRequest(
            inputs=[
                oip.ModelInferRequest.InferInputTensor(
                    name="image",
                    shape=[MAX_IMAGES],
                    contents=oip.InferTensorContents(bytes_contents=[bytes(60_000)] * MAX_IMAGES),
                )
            ],
            parameters={str(number): oip.InferParameter(int64_param=1) for number in range(100)},
        ),
        # Pixels, of which something better is said.
        oip.ModelInferRequest(
            inputs=[
                oip.ModelInferRequest.InferInputTensor(
                    contents=oip.InferTensorContents(
                        uint_contents=[200] * 224 * 224 * 3, fp32_contents=[0.5] * 1_000_000
                    )
                )
            ]
        ),
    ],
)
def test_what_is_in_order_is_parsed(message: Any) -> None:
    assert parser(type(message).FromString)(message.SerializeToString()) == message


def test_a_small_message_is_not_looked_at() -> None:
    check(b"\xff" * LARGE_BYTES, pb.PredictRequest)


@pytest.mark.parametrize(
    "end",
    [
        b"\xff" * 11,
        b"\x0a",
        b"\x0a\xff",
        field(1, b"x")[:-1],
        b"\x09\x00",
        b"\x0f",
        field(2, field(1, b"")[:-1]),
    ],
)
def test_what_is_no_message_is_refused(end: bytes) -> None:
    message = field(1, bytes(LARGE_BYTES)) + end
    with pytest.raises(DecodeError):
        check(message, pb.PredictBatchRequest)
    with pytest.raises(InvalidArgument, match="not a message of its type"):
        parser(pb.PredictBatchRequest.FromString)(message)


# The first message takes as long as the photos and letters that others are made of.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_all_that_can_be_parsed_can_be_counted(data: st.DataObject) -> None:
    kind: Any = data.draw(st.sampled_from([pb.PredictBatchRequest, oip.ModelInferRequest]))
    message = data.draw(messages(kind))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(field_count, "LARGE_BYTES", -1)
        try:
            check(message, kind)
        except InvalidArgument:
            return  # odd ones may have many
        except DecodeError:
            with pytest.raises(DecodeError):
                kind.FromString(message)
