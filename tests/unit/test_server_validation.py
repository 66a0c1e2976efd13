"""The rules of a request, at their limits."""

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
