"""One log line per request, and the headers that every response has."""

import time

import structlog
from flask import Flask, Response, g, request

from gateway.caller import REQUEST_ID_HEADER, traceparent_of
from telemetry.tracing import trace_id_of

log = structlog.get_logger(__name__)

_PROBES = {"/healthz", "/readyz"}


def register(app: Flask) -> None:
    """Write the line when the response is ready."""

    @app.after_request
    def name_request(response: Response) -> Response:
        response.headers[REQUEST_ID_HEADER] = g.request_id
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response

    @app.after_request
    def write_line(response: Response) -> Response:
        surprise = g.pop("surprise", None)
        ids = {
            "request_id": g.request_id,
            "trace_id": trace_id_of(traceparent_of(request.headers)),
        }
        write = log.debug if request.path in _PROBES else log.info
        write(
            "request",
            method=request.method,
            path=request.path,
            status=response.status_code,
            reason=g.pop("reason", ""),
            failed_images=g.pop("failed_images", 0),
            duration_ms=round((time.monotonic() - g.began_s) * 1000, 3),
            model=(request.view_args or {}).get("model", ""),
            peer=request.remote_addr,
            **ids,
        )
        if surprise is not None:
            log.error("unexpected error", exc_info=surprise, **ids)
        return response
