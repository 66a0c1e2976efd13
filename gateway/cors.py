"""Which pages of other origins may call: none, unless the settings name them."""

from typing import Final

from flask import Flask, Request, Response, request

from gateway.problems import Problem, respond
from gateway.settings import GatewaySettings

METHODS: Final = "GET, POST, DELETE"
REQUEST_HEADERS: Final = (
    "Authorization, Content-Type, Traceparent, X-Api-Key, X-Request-Id, X-Request-Timeout"
)
RESPONSE_HEADERS: Final = "Location, Retry-After, X-Request-Id"
MAX_AGE_S: Final = 600

ORIGIN_NOT_ALLOWED: Final = Problem(
    status=403,
    detail="pages of other origins may not call",
    reason="ORIGIN_NOT_ALLOWED",
    advice="if this is the gateway's own page, let the proxy before it hand on the Host of its"
    " callers (GATEWAY_ALLOWED_HOSTS may have to name it), or give GATEWAY_CORS_ORIGINS the"
    " origin of the page",
)


def register(app: Flask, settings: GatewaySettings) -> None:
    """Answer what browsers ask before they call, and refuse what they should not have sent."""
    allowed = settings.allowed_origins

    @app.before_request
    def guard() -> Response | None:
        origin = request.headers.get("Origin")
        if origin is None or _is_own(request, origin):
            return None
        is_allowed = "*" in allowed or origin in allowed
        if request.method == "OPTIONS" and is_allowed:
            return _preflight()
        # A browser sends a form to us, whichever page it is on, without asking first.
        if not is_allowed and request.method not in {"GET", "HEAD", "OPTIONS"}:
            return respond(ORIGIN_NOT_ALLOWED)
        return None

    @app.after_request
    def expose(response: Response) -> Response:
        if not allowed:
            return response
        origin = request.headers.get("Origin", "")
        response.vary.add("Origin")
        if origin and ("*" in allowed or origin in allowed):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = RESPONSE_HEADERS
        return response


def _preflight() -> Response:
    return Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": REQUEST_HEADERS,
            "Access-Control-Max-Age": str(MAX_AGE_S),
        },
    )


def _is_own(incoming: Request, origin: str) -> bool:
    # A proxy may speak another scheme to the outside. `Sec-Fetch-Site: same-origin` is no proof:
    # after DNS rebinding it is so, and behind a proxy that puts the gateway's own address into
    # `Host` nothing but `Origin` tells such a page from ours.
    return origin.partition("://")[2] == incoming.host
