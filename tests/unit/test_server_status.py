"""The table of errors and what goes with each."""

import grpc
import pytest
from google.rpc import error_details_pb2

from dispatch import errors
from server.status import CODE, MAX_TEXT_BYTES, reason_of, shortened, to_status, to_trailers


def test_every_leaf_of_the_error_tree_has_a_code_and_no_other_class_has() -> None:
    assert set(CODE) == set(errors.leaves())


def test_only_what_a_caller_may_retry_has_a_code_that_clients_retry() -> None:
    retried = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
    for leaf, code in CODE.items():
        assert issubclass(leaf, errors.Retryable) == (code in retried), leaf


@pytest.mark.parametrize("error", [ValueError("secret"), errors.OutcomeUnknown("secret")])
def test_a_surprise_is_told_with_a_fixed_text(error: Exception) -> None:
    status = to_status(error)
    assert status.message == "internal error"
    assert reason_of(status) == "INTERNAL"
    assert b"secret" not in status.SerializeToString()


def test_a_negative_wait_is_no_wait() -> None:
    trailers = dict(to_trailers(to_status(errors.NoWorker("none", retry_after_s=-1))))
    assert trailers["grpc-retry-pushback-ms"] == "0"


def test_those_who_are_refused_alike_are_told_when_to_come_each_at_another_time() -> None:
    def refusal(retry_after_s: float) -> errors.QueueFull:
        return errors.QueueFull("model:m/jobs", "full", retry_after_s=retry_after_s)

    trailers = [dict(to_trailers(to_status(refusal(10)))) for _ in range(50)]
    assert len({each["grpc-status-details-bin"] for each in trailers}) == 1
    waits_ms = {int(each["grpc-retry-pushback-ms"]) for each in trailers}
    assert len(waits_ms) > 10
    assert all(10_000 <= wait_ms <= 15_000 for wait_ms in waits_ms)
    assert to_status(refusal(10)) != to_status(refusal(20))


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidArgument("top_k", "\N{CAT}" * 10_000),
        errors.ModelNotFound("\N{CAT}" * 10_000),
        errors.QueueFull("jobs", "\N{CAT}" * 10_000),
    ],
)
def test_a_status_stays_small_whatever_the_caller_sent(error: errors.DespachoError) -> None:
    # 8 KB is what clients accept, the message in percent encoding included.
    status = to_status(error)
    details_bytes = len(status.SerializeToString()) * 4 / 3
    assert details_bytes + 3 * len(status.message.encode()) < 4096


def test_text_is_cut_between_characters() -> None:
    assert shortened("x" + "é" * MAX_TEXT_BYTES) == "x" + "é" * ((MAX_TEXT_BYTES - 1) // 2)


def test_the_field_of_an_invalid_image_is_the_image() -> None:
    violation = error_details_pb2.BadRequest()
    assert any(detail.Unpack(violation) for detail in to_status(errors.ImageEmpty("")).details)
    assert [each.field for each in violation.field_violations] == ["image"]
