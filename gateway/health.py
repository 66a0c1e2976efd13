"""`/healthz`: the gateway answers. `/readyz`: and so does a front-end that can take images.

Where callers must bring keys, that is one that looks at them.
"""

from typing import Final

from flask import Blueprint, Response, g

from client.messages import Messages, Terms
from gateway.connection import look
from gateway.json_mapping import respond
from gateway.key_demand import KeyDemand
from gateway.problems import Refused

CHECK_S: Final = 2.0
"""How long the front-end may take to say how it is."""

RETRY_S: Final = 1.0


def blueprint(upstream: Messages, demand: KeyDemand) -> Blueprint:
    """Return the routes, which need no key."""
    routes = Blueprint("health", __name__)

    @routes.get("/healthz")
    def alive() -> Response:
        return respond({"status": "SERVING"})

    @routes.get("/readyz")
    def ready() -> Response:
        # A probe is given up sooner than all others, and the next one comes while it waits.
        look(g.connection)
        demand.check(CHECK_S, g.connection)
        status = upstream.health("readiness", Terms(CHECK_S)).result()
        if status != "SERVING":
            raise Refused(
                503,
                f"the front-end cannot take images: {status}",
                reason="NOT_READY",
                retry_after_s=RETRY_S,
            )
        return respond({"status": status})

    return routes
