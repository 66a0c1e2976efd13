"""Which problem a caller is told for which status of gRPC."""

import re
from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2

from client.errors import DespachoError, InvalidImage
from dispatch import errors
from gateway.problems import STATUS_OF_CODE, Problem, of_error
from server.status import INTERNAL_ADVICE, INTERNAL_REASON

ERRORS_PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_every_status_of_grpc_has_one_of_http() -> None:
    assert set(STATUS_OF_CODE) == {code.name for code in grpc.StatusCode} - {"OK"}
    assert set(STATUS_OF_CODE) == set(code_pb2.Code.keys()) - {"OK"}


@pytest.mark.parametrize(
    ("reason", "status"),
    [("IMAGE_TOO_LARGE", 413), ("IMAGE_FORMAT_UNSUPPORTED", 415), ("IMAGE_UNDECODABLE", 400)],
)
def test_what_is_wrong_with_an_image_has_its_own_status(reason: str, status: int) -> None:
    error = InvalidImage("no", code=grpc.StatusCode.INVALID_ARGUMENT, reason=reason, field="image")
    problem = of_error(error)
    assert (problem.status, problem.field) == (status, "image")
    assert problem.body("r")["type"] == f"urn:despacho:reason:{reason}"


def test_no_advice_is_in_the_words_of_grpc() -> None:
    leaves = set(errors.leaves()) - {errors.OutcomeUnknown}  # which never leaves the project
    advice_of = {leaf.reason: leaf.advice for leaf in leaves}
    advice_of[INTERNAL_REASON] = INTERNAL_ADVICE
    # No path of the gateway can end with it.
    del advice_of["DEAD_LETTER_NOT_FOUND"]
    for reason, advice in advice_of.items():
        told = of_error(
            DespachoError("no", code=grpc.StatusCode.UNKNOWN, reason=reason, advice=advice)
        ).advice
        assert not re.search(r"BadRequest|RetryInfo|metadata|trailer|[a-z]Models?\b", told), reason


def test_a_message_that_the_transport_refused_is_too_large() -> None:
    error = InvalidImage("larger than max", code=grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert (of_error(error).status, of_error(error).reason) == (413, "IMAGE_TOO_LARGE")


def test_the_time_to_come_back_is_rounded_up_in_the_header_only() -> None:
    problem = of_error(
        DespachoError("full", code=grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=0.25)
    )
    assert problem.headers() == {"Retry-After": "1"}
    assert problem.body("r")["retry_after"] == 0.25


def test_whoever_is_unavailable_says_when_to_come_back() -> None:
    assert (
        "Retry-After" in of_error(DespachoError("gone", code=grpc.StatusCode.UNAVAILABLE)).headers()
    )


def test_a_problem_has_no_members_that_say_nothing() -> None:
    body = Problem(status=404, detail="nothing here").body("r1")
    assert body == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "nothing here",
        "request_id": "r1",
    }


def test_the_reasons_with_a_status_of_their_own_exist() -> None:
    reasons = set(re.findall(r"^\| `([A-Z_]+)` \|", ERRORS_PAGE.read_text(), re.MULTILINE))
    assert {"IMAGE_TOO_LARGE", "IMAGE_FORMAT_UNSUPPORTED", "OPERATION_NOT_FOUND"} <= reasons
