"""`ModelInfer` while a version of the model replaces another."""

import grpc

from tests.front_end import FrontEnd
from tests.inference_requests import answer_as, infer, raw, refusal


async def test_both_versions_may_answer_one_request(front: FrontEnd) -> None:
    answer_as(front, {b"a": ("2", 2), b"b": ("1", 2)})
    assert (await infer(front, raw(b"a", b"b"))).model_version == "1,2"


async def test_a_tensor_cannot_hold_two_numbers_of_classes(front: FrontEnd) -> None:
    answer_as(front, {b"a": ("2", 3), b"b": ("1", 2)})
    error = await refusal(front, raw(b"a", b"b"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "is being replaced; versions that answered: 1, 2" in str(error.details())


async def test_who_names_a_version_gets_no_other(front: FrontEnd) -> None:
    answer_as(front, {b"a": ("2", 2)})
    error = await refusal(front, raw(b"a", model_version="1.0"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
