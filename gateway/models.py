"""`/v1/models`: what is served."""

from flask import Blueprint, Response, g, request

from client.messages import Messages
from gateway.connection import answer
from gateway.json_mapping import respond, to_json
from gateway.parameters import Parameters


def blueprint(upstream: Messages) -> Blueprint:
    """Return the routes."""
    routes = Blueprint("models", __name__)

    @routes.get("/v1/models")
    def list_models() -> Response:
        Parameters(request, ())
        return respond(to_json(answer(upstream.list_models(g.caller.terms()), g.connection)))

    @routes.get("/v1/models/<model:model>")
    def get_model(model: str) -> Response:
        Parameters(request, ())
        return respond(to_json(answer(upstream.get_model(model, g.caller.terms()), g.connection)))

    return routes
