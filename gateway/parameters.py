"""What the path and the query of a request say."""

import math
import re
from collections.abc import Collection
from typing import Final
from uuid import UUID

from flask import Request

from gateway.problems import Refused
from prediction.v1 import prediction_pb2 as pb

PREDICT: Final = ("topK", "priority", "includeScores")
SUBMIT: Final = ("topK", "includeScores", "durability", "requestId")
OPERATION: Final = ("wait",)

MODEL_NAME: Final = "[a-z0-9][a-z0-9._-]{0,62}"
OPERATION_ID: Final = "[a-z0-9-]{1,64}"
ANY_MODEL: Final = "-"
"""In the name of an operation: whichever model it is of."""

MAX_TOP_K: Final = 1000
MAX_WAIT_S: Final = 300

WAIT_SLACK_S: Final = 5.0
"""How much longer than asked a front-end may take to say how an operation is, seconds."""

MAX_NUMBER_CHARS: Final = 400

_WHOLE: Final = re.compile(r"\d{1,6}", re.ASCII)
_SECONDS: Final = re.compile(r"\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def seconds_of(text: str) -> float | None:
    """Return a time that is written as a number of JSON; None: it is none."""
    if len(text) > MAX_NUMBER_CHARS or not _SECONDS.fullmatch(text):
        return None
    seconds = float(text)
    return seconds if math.isfinite(seconds) else None


def operation_name(model: str, operation_id: str) -> str:
    """Return what the front-end calls an operation.

    Raises:
        Refused: there can be none of that name.
    """
    if model != ANY_MODEL and not re.fullmatch(MODEL_NAME, model):
        raise Refused(400, "no model can have this name", field="model")
    if not re.fullmatch(OPERATION_ID, operation_id):
        raise Refused(400, "no operation can have this id", field="operation")
    return f"models/{model}/operations/{operation_id}"


class Parameters:
    """The query of a request, each name at most once and none that is unknown.

    Args:
        request: has the query.
        known: names that it may have.

    Raises:
        Refused: it says something else.
    """

    def __init__(self, request: Request, known: Collection[str]) -> None:
        for name, values in request.args.lists():
            if name not in known:
                raise Refused(400, f"there is no parameter {name[:40]!r}", field=name[:40])
            if len(values) > 1:
                raise Refused(400, f"the parameter {name!r} is there twice", field=name)
        self._values = request.args

    def top_k(self) -> int:
        """Return how many labels are wanted; 0: as many as the front-end likes."""
        text = self._values.get("topK")
        if text is None:
            return 0
        if not _WHOLE.fullmatch(text) or not 1 <= int(text) <= MAX_TOP_K:
            raise Refused(400, f"topK must be from 1 to {MAX_TOP_K}", field="topK")
        return int(text)

    def priority(self) -> pb.Priority.ValueType:
        """Return how soon it matters."""
        return pb.Priority.Value(self._one_of("priority", pb.Priority.keys()))

    def durability(self) -> pb.Durability.ValueType:
        """Return what an operation must survive."""
        return pb.Durability.Value(self._one_of("durability", pb.Durability.keys()))

    def include_scores(self) -> bool:
        """Return whether the score of every class is wanted."""
        text = self._values.get("includeScores", "false")
        if text not in {"true", "false"}:
            raise Refused(400, "includeScores must be true or false", field="includeScores")
        return text == "true"

    def request_id(self) -> str:
        """Return the UUID that makes a submission repeatable; empty: there is none."""
        text = self._values.get("requestId", "")
        if not text and "requestId" not in self._values:
            return ""
        try:
            is_uuid = str(UUID(text)) == text.lower()
        except ValueError:
            is_uuid = False
        if not is_uuid:
            raise Refused(400, "requestId must be a UUID", field="requestId")
        return text

    def wait_s(self) -> float:
        """Return how long to wait for the end of an operation, seconds."""
        text = self._values.get("wait", "0")
        seconds = seconds_of(text)
        if seconds is None or seconds > MAX_WAIT_S:
            raise Refused(400, f"wait must be from 0 to {MAX_WAIT_S} seconds", field="wait")
        return seconds

    def _one_of(self, name: str, names: Collection[str]) -> str:
        text = self._values.get(name)
        if text is None:
            return next(iter(names))  # the unspecified one
        if text not in names:
            raise Refused(400, f"{name} must be one of {', '.join(names)}", field=name)
        return text
