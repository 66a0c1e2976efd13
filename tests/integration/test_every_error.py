"""Every error is brought about on a real system, and callers are told what docs/errors.md promises.

A row says what a caller gets. It is written down here once more, and not taken
from the code: what callers rely on must not change unnoticed.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio
from google.rpc import status_pb2

import client
from dispatch import errors
from tests import error_situations as situations
from tests.error_situations import Situation, asking, asking_with
from tests.error_world import SLOW, World, running_world
from tests.every_way import REQUEST_ID
from tests.redis_server import RedisServer
from tests.stack import details_of_status, image_of
from tests.worker_process import MODEL, RAISE

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

PAGE: Final = Path(__file__).parents[2] / "docs" / "errors.md"
COLUMNS: Final = 7
NONE: Final = "\N{EN DASH}"
PNG: Final = image_of((1, 2, 3))


@dataclass(frozen=True, kw_only=True)
class Row:
    """What callers are told in a situation."""

    situation: Situation
    code: grpc.StatusCode
    raises: type[client.DespachoError]
    field: str = ""
    """Of `BadRequest`."""

    resource: tuple[str, str] = ("", "")
    """Of `ResourceInfo`: type and name."""

    retry_s: tuple[float, float] | None = None
    """Of `RetryInfo`: at least, at most."""

    subject: str = ""
    """Of `QuotaFailure`."""

    @property
    def details(self) -> set[str]:
        """Return the details that a status has, and has no other."""
        wanted = {
            "ErrorInfo": True,
            "BadRequest": self.field,
            "ResourceInfo": any(self.resource),
            "RetryInfo": self.retry_s,
            "QuotaFailure": self.subject,
        }
        return {name for name, is_there in wanted.items() if is_there}


def image_row(situation: Situation) -> Row:
    return Row(
        situation=situation,
        code=grpc.StatusCode.INVALID_ARGUMENT,
        raises=client.InvalidImage,
        field="image",
    )


def missing_row(situation: Situation, kind: str, name: str) -> Row:
    return Row(
        situation=situation,
        code=grpc.StatusCode.NOT_FOUND,
        raises=client.NotFound,
        resource=(kind, name),
    )


def denied_row(situation: Situation, code: grpc.StatusCode) -> Row:
    return Row(situation=situation, code=code, raises=client.AccessDenied)


def impossible_row(situation: Situation) -> Row:
    return Row(
        situation=situation,
        code=grpc.StatusCode.FAILED_PRECONDITION,
        raises=client.InvalidInput,
    )


def overload_row(situation: Situation, subject: str, *retry_s: float) -> Row:
    least_s, most_s = retry_s
    return Row(
        situation=situation,
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        raises=client.Overloaded,
        retry_s=(least_s, most_s),
        subject=subject,
    )


def unavailable_row(situation: Situation, retry_s: float) -> Row:
    return Row(
        situation=situation,
        code=grpc.StatusCode.UNAVAILABLE,
        raises=client.Unavailable,
        retry_s=(retry_s, retry_s),
    )


def internal_row(situation: Situation) -> Row:
    return Row(situation=situation, code=grpc.StatusCode.INTERNAL, raises=client.InternalError)


ROWS: Final = {
    "INVALID_ARGUMENT": Row(
        situation=asking(top_k=-1),
        code=grpc.StatusCode.INVALID_ARGUMENT,
        raises=client.InvalidInput,
        field="top_k",
    ),
    "IMAGE_EMPTY": image_row(situations.nothing),
    "IMAGE_UNDECODABLE": image_row(asking(PNG[: len(PNG) // 2])),
    "IMAGE_FORMAT_UNSUPPORTED": image_row(asking(b"not an image")),
    "IMAGE_TOO_LARGE": image_row(asking(situations.large_image())),
    "REQUEST_ID_REUSED": Row(
        situation=situations.a_used_request_id,
        code=grpc.StatusCode.ALREADY_EXISTS,
        raises=client.InvalidInput,
    ),
    "MODEL_NOT_FOUND": missing_row(asking(model="nobody"), "model", "nobody"),
    "OPERATION_NOT_FOUND": missing_row(
        situations.no_such_operation, "operation", f"models/{MODEL}/operations/{'0' * 32}"
    ),
    "DEAD_LETTER_NOT_FOUND": missing_row(
        situations.no_such_letter, "dead letter", f"models/{MODEL}/deadLetters/1-0"
    ),
    "DURABILITY_UNAVAILABLE": impossible_row(situations.no_append_only_file),
    "MODEL_IN_USE": impossible_row(situations.a_model_with_a_worker),
    "CREDENTIALS_MISSING": denied_row(asking_with(""), grpc.StatusCode.UNAUTHENTICATED),
    "CREDENTIALS_INVALID": denied_row(asking_with("nonsense"), grpc.StatusCode.UNAUTHENTICATED),
    "SCOPE_MISSING": denied_row(situations.a_narrow_key, grpc.StatusCode.PERMISSION_DENIED),
    "QUEUE_FULL": overload_row(situations.a_full_queue, f"model:{SLOW}/jobs", 0.05, 30),
    "RATE_LIMITED": overload_row(situations.a_hasty_caller, "key:hasty/requests_per_s", 1, 100),
    "NO_WORKER": unavailable_row(situations.a_killed_worker, 5),
    "MODEL_LOADING": unavailable_row(situations.a_loading_worker, 2),
    "BROKER_UNAVAILABLE": unavailable_row(situations.no_redis, 1),
    "DRAINING": unavailable_row(situations.a_server_that_stops, 1),
    "EXPIRED_IN_QUEUE": Row(
        situation=situations.a_deadline_that_passes,
        code=grpc.StatusCode.DEADLINE_EXCEEDED,
        raises=client.DeadlineExceeded,
    ),
    "OPERATION_CANCELLED": Row(
        situation=situations.a_cancelled_operation,
        code=grpc.StatusCode.CANCELLED,
        raises=client.Cancelled,
    ),
    "INFERENCE_FAILED": internal_row(asking(image_of(RAISE))),
    "JOB_POISONED": internal_row(situations.a_poisonous_image),
    "INTERNAL": internal_row(situations.a_damaged_record),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("errors")
    redis = RedisServer(folder)
    redis.start()
    try:
        async with running_world(redis, folder) as running:
            yield running
    finally:
        redis.stop()


@cache
def page() -> dict[str, list[str]]:
    """Return what docs/errors.md says of each reason, by reason."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows if len(row) == COLUMNS}


def test_every_error_has_a_row() -> None:
    leaves = {leaf.reason for leaf in errors.leaves()} - {errors.OutcomeUnknown.reason}
    assert set(ROWS) == leaves | {"INTERNAL"}


@pytest.mark.parametrize("reason", ROWS)
def test_the_page_promises_it(reason: str) -> None:
    code, details, retry, _, _, raises = page()[reason]
    row = ROWS[reason]
    assert code == f"`{row.code.name}`"
    assert {name.strip("`") for name in details.split(", ")} - {NONE} == row.details - {"ErrorInfo"}
    assert retry == ("no" if row.retry_s is None else "yes")
    assert raises == f"`{row.raises.__name__}`"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("reason", ROWS)
async def test_callers_are_told_what_the_table_promises(world: World, reason: str) -> None:
    row = ROWS[reason]
    told = await row.situation(world)
    for each in told:
        if isinstance(each, client.DespachoError):
            check_raised(each, reason, row)
        elif isinstance(each, status_pb2.Status):
            check_status(each, reason, row)
        else:
            check_call(each, reason, row)
    # By a program of one's own, and by the client.
    assert {isinstance(each, client.DespachoError) for each in told} == {True, False}


def check_call(error: Any, reason: str, row: Row) -> None:
    trailers: dict[str, Any] = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    check_status(status, reason, row)
    assert error.code() is row.code
    assert error.details() == status.message
    assert trailers["x-request-id"] == REQUEST_ID
    assert ("grpc-retry-pushback-ms" in trailers) == (row.retry_s is not None)
    if row.retry_s is not None:
        # As long as `RetryInfo` says, and up to half as long again, as its readers add no jitter.
        wait_ms = details_of_status(status)["RetryInfo"].retry_delay.ToMilliseconds()
        assert wait_ms <= int(trailers["grpc-retry-pushback-ms"]) <= round(1.5 * wait_ms)


def check_status(status: status_pb2.Status, reason: str, row: Row) -> None:
    assert status.code == row.code.value[0], status
    assert status.message
    details = details_of_status(status)
    assert len(details) == len(status.details)
    assert set(details) == row.details, status
    info = details["ErrorInfo"]
    assert (info.domain, info.reason) == ("despacho", reason)
    assert dict(info.metadata) == {"advice": advice_on_page(reason)}
    if row.field:
        (violation,) = details["BadRequest"].field_violations
        assert (violation.field, violation.description) == (row.field, status.message)
    if any(row.resource):
        found = details["ResourceInfo"]
        assert (found.resource_type, found.resource_name) == row.resource
    if row.subject:
        (failure,) = details["QuotaFailure"].violations
        assert (failure.subject, failure.description) == (row.subject, status.message)
    if row.retry_s is not None:
        least_s, most_s = row.retry_s
        wait_s = details["RetryInfo"].retry_delay.ToTimedelta().total_seconds()
        assert least_s <= wait_s <= most_s


def check_raised(error: client.DespachoError, reason: str, row: Row) -> None:
    assert type(error) is row.raises
    assert (error.reason, error.code, error.field) == (reason, row.code, row.field)
    assert error.message
    assert error.advice == advice_on_page(reason)
    assert isinstance(error, client.Retryable) == (row.retry_s is not None)
    if row.retry_s is None:
        assert error.retry_after_s is None
    else:
        least_s, most_s = row.retry_s
        assert error.retry_after_s is not None
        assert least_s <= error.retry_after_s <= most_s


def advice_on_page(reason: str) -> str:
    _, _, _, _, advice, _ = page()[reason]
    return advice
