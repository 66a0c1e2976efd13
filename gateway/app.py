"""The application: which routes there are, and what happens around each request."""

import time

from flask import Flask, Response, g, request
from werkzeug.routing import BaseConverter

from client.messages import Messages
from gateway import (
    access_log,
    cors,
    health,
    hosts,
    models,
    openapi,
    operations,
    page,
    predict,
    problems,
    request_metrics,
)
from gateway.caller import caller_of, request_id_of
from gateway.connection import CallerGone, connection_of, look
from gateway.held_bytes import HeldBytes
from gateway.key_demand import KeyDemand
from gateway.settings import GatewaySettings
from gateway.stats import blueprint as stats_blueprint
from gateway.stats_hub import StatsHub


class ModelConverter(BaseConverter):
    """The name of a model in a path; what follows a colon is what to do with it."""

    regex = "[^/:]+"


OPEN_ENDPOINTS = ("health.", "openapi.", "page.")
"""What needs no key: probes, the document and the page."""


def create_app(
    settings: GatewaySettings, upstream: Messages, stats: StatsHub, held: HeldBytes
) -> Flask:
    """Return the application.

    Args:
        settings: the knobs.
        upstream: the front-end.
        stats: the live figures.
        held: the bytes of all images that are here.
    """
    app = Flask("gateway", static_folder=None)
    # What is answered to OPTIONS is in `cors.py`.
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.json.sort_keys = False  # type: ignore[attr-defined] # of the provider that Flask has
    app.url_map.strict_slashes = True
    # A redirect would be HTML, and leads behind a proxy with TLS to an address without.
    app.url_map.merge_slashes = False
    app.url_map.converters["model"] = ModelConverter

    @app.before_request
    def begin() -> None:
        g.began_s = time.monotonic()
        g.request_id = request_id_of(request.headers)
        g.connection = connection_of(request.environ)

    problems.register(app)
    hosts.register(app, settings)
    cors.register(app, settings)
    demand = KeyDemand(upstream, is_needed=settings.require_key)

    @app.before_request
    def meet() -> None:
        # Without an endpoint there is nothing to be asked, and the answer is 404 or 405.
        if request.endpoint and not request.endpoint.startswith(OPEN_ENDPOINTS):
            look(g.connection)
            g.caller = caller_of(request.headers, g.request_id, settings, g.connection.arrived_s)
            g.connection.listen_until(g.caller.ends_s)
            demand.check(g.caller.left_s, g.connection)

    @app.errorhandler(CallerGone)
    def gone(error: CallerGone) -> Response:
        del error
        g.reason = "CALLER_GONE"
        return Response(status="499 Client Closed Request")

    access_log.register(app)
    request_metrics.register(app)
    for routes in (
        predict.blueprint(settings, upstream, held),
        operations.blueprint(settings, upstream, held),
        models.blueprint(upstream),
        health.blueprint(upstream, demand),
        stats_blueprint(settings, stats),
        openapi.blueprint(),
        page.blueprint(),
    ):
        app.register_blueprint(routes)
    return app
