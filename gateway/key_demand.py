"""Whether the front-end looks at keys, where the gateway lets in only those who bring one.

One without keys takes whoever has a connection, and the gateway has one: any made-up key would do.
"""

import time
from collections.abc import Callable
from typing import Final

import structlog

from client.errors import DespachoError
from client.messages import Messages, Terms
from gateway.connection import Connection, answer
from gateway.problems import Refused

log = structlog.get_logger(__name__)

HOLDS_S: Final = 30.0
"""How long the front-end is trusted to refuse who has no key, seconds. Another one may take its
place."""

RETRY_S: Final = 5.0


class KeyDemand:
    """Lets callers on to a front-end that asks for keys.

    Args:
        upstream: the front-end.
        is_needed: whether to look at all.
        now: monotonic clock, seconds.
    """

    def __init__(
        self, upstream: Messages, *, is_needed: bool, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._upstream = upstream
        self._is_needed = is_needed
        self._now = now
        self._holds_until_s = 0.0
        self._was_missing = False

    def check(self, limit_s: float, connection: Connection) -> None:
        """Return if the front-end refused a call without a key, now or a moment ago.

        Args:
            limit_s: how long it may take to do so, seconds.
            connection: that of the caller.

        Raises:
            Refused: it did not, or the gateway stops.
            CallerGone: nobody waits for it any more.
            DespachoError: why the front-end did not answer.
        """
        if not self._is_needed or self._now() < self._holds_until_s:
            return
        try:
            answer(self._upstream.list_models(Terms(limit_s)), connection)
        except DespachoError as error:
            if error.code.name != "UNAUTHENTICATED":
                raise
            self._holds_until_s = self._now() + HOLDS_S
            self._was_missing = False
            return
        if not self._was_missing:
            log.error(
                "the front-end wants no keys, so nobody is let in with one",
                advice="give it SERVER_API_KEYS_FILE, or take GATEWAY_REQUIRE_KEY away here",
            )
        self._was_missing = True
        raise Refused(
            503,
            "keys are needed here, and the front-end does not look at them",
            reason="KEYS_NOT_CHECKED",
            retry_after_s=RETRY_S,
        )
