"""Errors as RFC 9457 problem details: one table from the status of gRPC to that of HTTP."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from flask import Flask, Response, g, json
from werkzeug.exceptions import HTTPException

from client.errors import DespachoError, InvalidImage, Unreachable

CONTENT_TYPE: Final = "application/problem+json"

TYPE_PREFIX: Final = "urn:despacho:reason:"
"""Followed by a reason of `docs/errors.md`: the `type` of a problem, which never changes."""

STATUS_OF_CODE: Final[Mapping[str, int]] = {
    "CANCELLED": 499,  # as the usual mapping has it: the client closed the request
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}
"""By the names of `google.rpc.Code`, as in its own comments."""

STATUS_OF_REASON: Final[Mapping[str, int]] = {
    "IMAGE_TOO_LARGE": 413,
    "IMAGE_FORMAT_UNSUPPORTED": 415,
}
"""Reasons for which HTTP has a status of its own."""

ADVICE_OF_REASON: Final[Mapping[str, str]] = {
    "INVALID_ARGUMENT": "Change what `field` names.",
    "MODEL_NOT_FOUND": "`GET /v1/models` tells the names; start a worker for it.",
    "CREDENTIALS_MISSING": "Send it in the header `Authorization: Bearer KEY`.",
    "QUEUE_FULL": "Wait as long as `retry_after` says; if it goes on, add workers, or delete"
    " operations that have ended.",
    "RATE_LIMITED": "Wait as long as `retry_after` says; other callers are not affected.",
    "MODEL_LOADING": "Wait as long as `retry_after` says.",
    "EXPIRED_IN_QUEUE": "Give it longer, or look at `queueDepth` and `estimatedWait` of"
    " `GET /v1/models/{model}`.",
    "INTERNAL": "Give the operator the `request_id`: the log of the front-end has the traceback"
    " under it.",
}
"""Where the front-end's own advice is in the words of gRPC."""

UNAVAILABLE_RETRY_S: Final = 1.0
"""When to come back if nobody answers at the front-end's address, and so nobody says."""

_TITLES: Final = {499: "Client Closed Request"}


class Refused(Exception):
    """The gateway itself refuses a request.

    Args:
        status: of HTTP.
        detail: what is wrong, for a person.
        reason: stable name of the cause, as in `docs/errors.md` and `docs/gateway.md`.
        field: what of the request is at fault.
        retry_after_s: when to try again, seconds.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        reason: str = "INVALID_ARGUMENT",
        field: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(
            status=status, detail=detail, reason=reason, field=field, retry_after_s=retry_after_s
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem, before it is written."""

    status: int
    detail: str
    reason: str = ""
    """Empty: HTTP's own status says all there is."""
    code: str = ""
    """Name of the gRPC status; empty if no front-end was asked."""
    field: str = ""
    advice: str = ""
    """What to do next; empty if nobody says."""
    retry_after_s: float | None = None

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the members."""
        members: dict[str, Any] = {
            "type": f"{TYPE_PREFIX}{self.reason}" if self.reason else "about:blank",
            "title": self.reason.replace("_", " ").capitalize() or phrase(self.status),
            "status": self.status,
            "detail": self.detail,
        }
        optional = {
            "reason": self.reason,
            "code": self.code,
            "field": self.field,
            "advice": self.advice,
            "retry_after": self.retry_after_s,
            "request_id": request_id,
        }
        return members | {
            name: value for name, value in optional.items() if value not in {"", None}
        }

    def headers(self) -> dict[str, str]:
        """Return what HTTP says of it outside of the body."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(math.ceil(self.retry_after_s))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Bearer realm="despacho"'
        return headers


def of_error(error: DespachoError) -> Problem:
    """Return what a caller is told of an error of the front-end."""
    code = error.code.name
    status = STATUS_OF_REASON.get(error.reason) or STATUS_OF_CODE.get(code, 500)
    retry_after_s = error.retry_after_s
    if code == "UNAVAILABLE" and retry_after_s is None:
        retry_after_s = UNAVAILABLE_RETRY_S
    if isinstance(error, InvalidImage) and code == "RESOURCE_EXHAUSTED":
        # The transport refused the message for its size.
        return Problem(status=413, detail=error.message, reason="IMAGE_TOO_LARGE", code=code)
    if isinstance(error, Unreachable):
        # What gRPC says of it are addresses that are none of the caller's business.
        return Problem(
            status=status,
            detail="no front-end answers",
            reason="FRONT_END_UNREACHABLE",
            code=code,
            retry_after_s=retry_after_s,
        )
    return Problem(
        status=status,
        detail=error.message,
        reason=error.reason,
        code=code,
        field=error.field,
        advice=ADVICE_OF_REASON.get(error.reason, error.advice),
        retry_after_s=retry_after_s,
    )


def internal() -> Problem:
    """Return what a caller is told of what nobody expected: no more than that it happened."""
    return Problem(status=500, detail="internal error", reason="INTERNAL")


def phrase(status: int) -> str:
    """Return the name of a status."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


def respond(problem: Problem) -> Response:
    """Write a problem as the whole response."""
    g.reason = problem.reason
    return Response(
        json.dumps(problem.body(g.request_id)),
        status=f"{problem.status} {phrase(problem.status)}",
        headers=problem.headers(),
        content_type=CONTENT_TYPE,
    )


def register(app: Flask) -> None:
    """Let every error of the application leave it as a problem."""

    @app.errorhandler(Refused)
    def refused(error: Refused) -> Response:
        return respond(error.problem)

    @app.errorhandler(DespachoError)
    def failed(error: DespachoError) -> Response:
        return respond(of_error(error))

    @app.errorhandler(HTTPException)
    def routed(error: HTTPException) -> Response:
        status = error.code or 500
        response = respond(Problem(status=status, detail=error.description or phrase(status)))
        for name, value in error.get_headers():
            if name.lower() not in {"content-type", "content-length"}:
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def surprised(error: Exception) -> Response:
        # What happened is for the log, not for the caller.
        g.surprise = error
        return respond(internal())
