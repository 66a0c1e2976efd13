"""How tensors lie in messages, byte by byte."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.errors import InvalidArgument
from inference import grpc_predict_v2_pb2 as pb
from server.tensors import (
    BytesTensor,
    Fp32Tensor,
    Tensor,
    add_outputs,
    split_raw_bytes,
    typed_bytes,
)

FIELD = "raw_input_contents[0]"


def test_raw_bytes_are_preceded_by_their_length_little_endian() -> None:
    tensor = BytesTensor("labels", (2,), [b"cat", b""])
    assert tensor.raw() == b"\x03\0\0\0cat\0\0\0\0"


def test_raw_numbers_are_little_endian() -> None:
    tensor = Fp32Tensor("scores", (1, 2), [1.0, -0.5])
    assert tensor.raw() == b"\0\0\x80\x3f" + b"\0\0\0\xbf"


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_what_was_joined_can_be_split(elements: list[bytes]) -> None:
    raw = BytesTensor("image", (len(elements),), elements).raw()
    assert split_raw_bytes(raw, len(elements), field=FIELD) == elements


@given(st.binary(max_size=60), st.integers(0, 5))
def test_any_bytes_are_split_or_refused(raw: bytes, count: int) -> None:
    elements: list[bytes] | None = None
    with suppress(InvalidArgument):
        elements = split_raw_bytes(raw, count, field=FIELD)
    assert elements is None or BytesTensor("image", (count,), elements).raw() == raw


@pytest.mark.parametrize(
    ("raw", "count", "message"),
    [
        (b"\x01\0\0\0", 1, "ends within element 0: its length is 1 bytes, 0 are left"),
        (b"\x01\0\0\0a\x02\0\0\0b", 2, "ends within element 1"),
        (b"\x01\0\0", 1, "ends within a length"),
        (b"\x01\0\0\0a", 2, "has 1 elements; the shape says 2"),
        (b"\x01\0\0\0a\x01\0\0\0b", 1, "has more than 1 elements; the shape says 1"),
        (b"", 1, "has 0 elements; the shape says 1"),
        # The file as it is, which is the first thing that everybody tries.
        (b"\xff\xd8\xff\xe0\0\x10JFIF", 1, "is it preceded by its length"),
    ],
)
def test_raw_bytes_that_are_refused(raw: bytes, count: int, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        split_raw_bytes(raw, count, field=FIELD)


def test_a_flood_of_empty_elements_is_refused_at_once() -> None:
    # Who reads to the end finds that the last length is cut short.
    flood = bytes(4_000_000) + b"\0"
    with pytest.raises(InvalidArgument, match="more than 1 elements"):
        split_raw_bytes(flood, 1, field=FIELD)


def test_typed_bytes_are_taken_as_they_are() -> None:
    contents = pb.InferTensorContents(bytes_contents=[b"a", b""])
    assert typed_bytes(contents, 2, field="contents") == [b"a", b""]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (pb.InferTensorContents(), "has 0 elements; the shape says 1"),
        (pb.InferTensorContents(bytes_contents=[b"a", b"b"]), "has 2 elements"),
        (pb.InferTensorContents(uint_contents=[1]), "has uint_contents"),
        (pb.InferTensorContents(bytes_contents=[b"a"], fp32_contents=[1]), "has fp32_contents"),
    ],
)
def test_typed_bytes_that_are_refused(contents: pb.InferTensorContents, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        typed_bytes(contents, 1, field="contents")


@pytest.mark.parametrize("is_raw", [True, False])
def test_outputs_are_all_raw_or_all_typed(*, is_raw: bool) -> None:
    response = pb.ModelInferResponse()
    tensors: list[Tensor] = [
        BytesTensor("labels", (1,), [b"cat"]),
        Fp32Tensor("scores", (1, 1), [0.5]),
    ]
    add_outputs(response, tensors, is_raw=is_raw)
    assert [(each.name, each.datatype, list(each.shape)) for each in response.outputs] == [
        ("labels", "BYTES", [1]),
        ("scores", "FP32", [1, 1]),
    ]
    assert [each.HasField("contents") for each in response.outputs] == [not is_raw] * 2
    if is_raw:
        assert list(response.raw_output_contents) == [b"\x03\0\0\0cat", struct.pack("<f", 0.5)]
    else:
        assert not response.raw_output_contents
        assert list(response.outputs[0].contents.bytes_contents) == [b"cat"]
        assert list(response.outputs[1].contents.fp32_contents) == [0.5]
