"""Requests by route and status, for Prometheus."""

import time
from typing import Final

from flask import Flask, Response, g, request

from telemetry.metrics_catalogue import REQUEST_SECONDS, REQUESTS

NO_ROUTE: Final = "none"
"""The route of paths that are not there: callers can make up as many as they like."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

OTHER: Final = "OTHER"
"""Methods that HTTP does not know, for the same reason."""


def register(app: Flask) -> None:
    """Count when the response is ready."""

    @app.after_request
    def count(response: Response) -> Response:
        route = NO_ROUTE if request.url_rule is None else request.url_rule.rule
        method = request.method if request.method in METHODS else OTHER
        REQUESTS.add(method, route, str(response.status_code))
        REQUEST_SECONDS.observe(time.monotonic() - g.began_s, method, route)
        return response
