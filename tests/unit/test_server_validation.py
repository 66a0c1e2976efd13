"""The rules of a request, at their limits."""

from pathlib import Path

import pytest

from dispatch import errors
from dispatch.jobs import Priority
from prediction.v1 import prediction_pb2 as pb
from server import validation


def test_an_image_may_have_1_byte_to_the_limit() -> None:
    validation.check_image(b"x", max_bytes=2)
    validation.check_image(b"xx", max_bytes=2)
    with pytest.raises(errors.ImageEmpty):
        validation.check_image(b"", max_bytes=2)
    with pytest.raises(errors.ImageTooLarge, match="3 bytes; the limit is 2 bytes"):
        validation.check_image(b"xxx", max_bytes=2)


@pytest.mark.parametrize(("sent", "meant"), [(0, 5), (1, 1), (1000, 1000)])
def test_top_k_in_range(sent: int, meant: int) -> None:
    assert validation.to_top_k(sent) == meant


@pytest.mark.parametrize("sent", [-1, 1001, -(2**31), 2**31 - 1])
def test_top_k_out_of_range(sent: int) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        validation.to_top_k(sent)
    assert caught.value.field == "top_k"


@pytest.mark.parametrize("sent", ["", "a", "a b", "~" * 128])
def test_request_ids_that_are_accepted(sent: str) -> None:
    validation.check_request_id(sent)


@pytest.mark.parametrize("sent", ["x" * 129, "é", "a\nb", "a\x7f", "\x00"])
def test_request_ids_that_are_refused(sent: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        validation.check_request_id(sent)
    assert caught.value.field == "request_id"


def test_every_priority_of_the_contract_is_known() -> None:
    assert set(validation.PRIORITIES) == set(pb.Priority.values())
    assert validation.to_priority(pb.PRIORITY_UNSPECIFIED) is Priority.NORMAL


@pytest.mark.parametrize("count", [1, 256])
def test_as_many_images_as_a_batch_may_have(count: int) -> None:
    validation.check_batch_count(count)


@pytest.mark.parametrize("count", [0, 257])
def test_more_or_fewer_images_than_a_batch_may_have(count: int) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        validation.check_batch_count(count)
    assert caught.value.field == "images"


def test_the_contract_says_how_many_images_a_batch_may_have() -> None:
    root = Path(__file__).parents[2]
    contract = (root / "protos/prediction/v1/prediction.proto").read_text()
    assert f"// The images. 1 to {validation.MAX_BATCH_IMAGES} of them." in contract
    assert f"no images or more than {validation.MAX_BATCH_IMAGES}." in contract
    for page in ("client.md", "errors.md"):
        assert f"{validation.MAX_BATCH_IMAGES}" in (root / "docs" / page).read_text()


@pytest.mark.parametrize("announced", [0, 1, 10])
def test_a_size_that_may_be_announced(announced: int) -> None:
    assert validation.to_total_bytes(announced, max_bytes=10) == announced


def test_a_size_that_may_not_be_announced() -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        validation.to_total_bytes(-1, max_bytes=10)
    assert caught.value.field == "total_bytes"
    with pytest.raises(errors.ImageTooLarge, match="11 bytes; the limit is 10 bytes"):
        validation.to_total_bytes(11, max_bytes=10)
