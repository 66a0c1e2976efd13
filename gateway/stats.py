"""`/v1/stats`: the live figures, as server-sent events."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from flask import Blueprint, Response, g, request

from gateway.body import size_of
from gateway.problems import Refused
from gateway.settings import GatewaySettings
from gateway.stats_hub import FIRST_S, Feed, StatsHub, TooManyListeners

SILENCE_S: Final = 5.0
"""After this a listener gets a remark, so that it is noticed when one has gone."""

RETRY_S: Final = 5.0


def blueprint(settings: GatewaySettings, hub: StatsHub) -> Blueprint:
    """Return the route."""
    routes = Blueprint("stats", __name__)

    @routes.get("/v1/stats")
    def watch() -> Response:
        if size_of(request) != 0:
            # Nobody would read it, and its caller may not read before it has sent it all.
            raise Refused(400, "the live figures take no body")
        stack = ExitStack()
        try:
            feed = stack.enter_context(hub.listening(g.caller.key))
        except TooManyListeners:
            raise Refused(
                503,
                f"{settings.max_stats_listeners} others are listening already",
                reason="TOO_MANY_LISTENERS",
                retry_after_s=RETRY_S,
            ) from None
        try:
            first = feed.next(0, FIRST_S)
            if feed.refusal is not None:
                raise feed.refusal
        except BaseException:
            stack.close()
            raise
        response = Response(_events(feed, *first, stack), content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        # A proxy that collects a response would hold the figures back.
        response.headers["X-Accel-Buffering"] = "no"
        # Also when nobody takes the first event, as after HEAD.
        response.call_on_close(stack.close)
        return response

    return routes


def _events(feed: Feed, number: int, event: str, stack: ExitStack) -> Iterator[str]:
    with stack:
        yield event or ": waiting\n\n"
        while True:
            number, event = feed.next(number, SILENCE_S)
            if event:
                yield event
            elif feed.has_ended:
                return
            else:
                yield ": still here\n\n"
