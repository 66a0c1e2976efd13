"""Who calls, how long they wait, and what goes along with what they ask: read from the headers."""

import re
import time
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from werkzeug.datastructures import Headers

from client import trace_context
from client.messages import Terms
from gateway.parameters import seconds_of
from gateway.problems import Refused
from gateway.settings import GatewaySettings

REQUEST_ID_HEADER: Final = "X-Request-Id"
"""The caller's id of the request; echoed, and in the logs of all services."""

TIMEOUT_HEADER: Final = "X-Request-Timeout"
"""How long the caller will wait, seconds."""

MAX_KEY_CHARS: Final = 1024
"""Longest header with a key; the front-end bounds all metadata of a call."""

_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_KEY: Final = re.compile(rf"[\x20-\x7e]{{1,{MAX_KEY_CHARS}}}")


CREDENTIALS: Final = ("authorization", "x-api-key")
"""Headers that say who calls; they have the same names for the front-end."""

Key = tuple[tuple[str, str], ...]
"""The credentials of a caller, as they are sent on. Empty: there are none."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of one request."""

    request_id: str

    ends_s: float
    """When the caller gives up, seconds of the monotonic clock."""

    metadata: tuple[tuple[str, str], ...] = field(repr=False)
    """What the front-end is told of the caller."""

    @property
    def key(self) -> Key:
        """What the front-end knows the caller by."""
        return tuple(pair for pair in self.metadata if pair[0] in CREDENTIALS)

    @property
    def left_s(self) -> float:
        """How long the caller will still wait, seconds."""
        return max(0.0, self.ends_s - time.monotonic())

    def terms(self, *, extra_s: float = 0) -> Terms:
        """Return how to call the front-end now.

        Args:
            extra_s: how much longer it may take than the caller said, seconds.
        """
        return Terms(self.left_s + extra_s, self.metadata)


def new_request_id() -> str:
    """Return an id for a request that has none."""
    return uuid4().hex


def request_id_of(headers: Headers) -> str:
    """Return the caller's id, or a new one; a bad one may be the work of some proxy."""
    request_id = headers.get(REQUEST_ID_HEADER, "")
    return request_id if _REQUEST_ID.fullmatch(request_id) else new_request_id()


def traceparent_of(headers: Headers) -> str:
    """Return the trace context of a request; empty if there is none."""
    # Where the gateway itself is traced, its own span has the caller's as its parent.
    traceparent = trace_context.current() or headers.get(trace_context.KEY, "")
    return traceparent if _TRACEPARENT.fullmatch(traceparent) else ""


def caller_of(
    headers: Headers, request_id: str, settings: GatewaySettings, arrived_s: float
) -> Caller:
    """Return the caller of a request.

    Args:
        headers: of the request.
        request_id: its id.
        settings: limits.
        arrived_s: when it began to arrive, seconds of the monotonic clock.

    Raises:
        Refused: the headers say what cannot be, or the request waited too long for a thread.
    """
    metadata = [*_key_of(headers, settings), ("x-request-id", request_id)]
    if traceparent := traceparent_of(headers):
        metadata.append((trace_context.KEY, traceparent))
    caller = Caller(request_id, arrived_s + _timeout_s(headers, settings), tuple(metadata))
    if not caller.left_s:
        raise Refused(
            504, "the time was over before the gateway came to it", reason="EXPIRED_IN_QUEUE"
        )
    return caller


def _key_of(headers: Headers, settings: GatewaySettings) -> list[tuple[str, str]]:
    keys = []
    for header in CREDENTIALS:
        value = headers.get(header, "")
        if value and not _KEY.fullmatch(value):
            raise Refused(401, f"the header `{header}` is no key", reason="CREDENTIALS_INVALID")
        if value:
            keys.append((header, value))
    if keys:
        return keys
    if settings.require_key:
        raise Refused(
            401,
            "an API key is needed, in the header `Authorization: Bearer KEY`",
            reason="CREDENTIALS_MISSING",
        )
    return [("authorization", f"Bearer {settings.api_key}")] if settings.api_key else []


def _timeout_s(headers: Headers, settings: GatewaySettings) -> float:
    text = headers.get(TIMEOUT_HEADER)
    if text is None:
        return settings.default_timeout_s
    seconds = seconds_of(text)
    if seconds is None or seconds == 0:
        raise Refused(
            400,
            f"{TIMEOUT_HEADER} must be a number of seconds above 0, such as 2.5",
            field=TIMEOUT_HEADER,
        )
    return min(seconds, settings.max_timeout_s)
