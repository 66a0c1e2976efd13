"""What a caller may be told, whatever it sends; anything else is a finding."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from dispatch.errors import DespachoError
from server.status import CODE

OK: Final = "OK"
CANCELLED: Final = "CANCELLED"
LATE: Final = "DEADLINE_EXCEEDED"

NOT_EXPECTED: Final = frozenset(
    {
        # A whole and open system is attacked: none of these has a cause.
        *("NO_WORKER", "MODEL_LOADING", "BROKER_UNAVAILABLE", "DRAINING", "RATE_LIMITED"),
        *("CREDENTIALS_MISSING", "CREDENTIALS_INVALID", "SCOPE_MISSING"),
        # A worker died, or something raised what it should not.
        *("JOB_POISONED", "INFERENCE_FAILED", "OUTCOME_UNKNOWN"),
        # The attacks wait long enough.
        "EXPIRED_IN_QUEUE",
    }
)
"""Reasons of the documented table that are findings here."""

PERMITTED: Final = frozenset(
    f"{code.name} {error.reason}"
    for error, code in CODE.items()
    if issubclass(error, DespachoError) and error.reason not in NOT_EXPECTED
)

TOO_LARGE: Final = ("larger than max", "Metadata size", "metadata size")
"""In the words of gRPC, which refuses these by itself."""


HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"
"""The one method that says NOT_FOUND without a reason: of a name that nothing has."""


class Wrong(Exception):
    """A finding: what should never happen, in a line."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended."""

    code: str
    reason: str = ""
    text: str = ""
    took_s: float = 0.0
    path: str = ""
    """Of the method that was called; empty: it is the answer to one item of a call."""

    @property
    def name(self) -> str:
        """Code and reason, as the report counts them."""
        return f"{self.code} {self.reason}".strip()


def judge(answer: Answer, *, also: Collection[str] = (), within_s: float) -> None:
    """Accept an answer, by its code and its reason: a text alone makes none of them right.

    Args:
        answer: how the call ended.
        also: names of answers that this caller has asked for, such as that it cancelled.
        within_s: how long it may have taken.

    Raises:
        Wrong: it is not one that a caller may get, or came too late.
    """
    if answer.took_s > within_s:
        raise Wrong(f"{answer.name} after {answer.took_s:.1f} s; {within_s:.0f} s are enough")
    if answer.name not in {OK, *PERMITTED, *also} and not _is_grpcs_own(answer):
        raise Wrong(f"{answer.name}: {answer.text[:300]}")


def _is_grpcs_own(answer: Answer) -> bool:
    """Say whether it is one of the table of statuses without a reason."""
    if answer.reason:
        return False
    if answer.code == "RESOURCE_EXHAUSTED":
        return any(words in answer.text for words in TOO_LARGE)
    return answer.code == "NOT_FOUND" and answer.path == HEALTH_CHECK
