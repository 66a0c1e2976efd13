"""`/openapi.json`: what the API promises."""

from typing import Any, Final

from flask import Blueprint, Response
from google.longrunning import operations_pb2  # type: ignore[import-untyped, unused-ignore]

from client import __version__
from gateway import openapi_parts as part
from gateway.json_mapping import respond
from gateway.schemas import reference, schemas_of
from prediction.v1 import admin_pb2
from prediction.v1 import prediction_pb2 as pb

PREDICT_RESPONSE: Final = reference(pb.PredictResponse.DESCRIPTOR)
OPERATION: Final = reference(operations_pb2.Operation.DESCRIPTOR)

ALWAYS: Final = (400, 401, 403, 429, 500, 503, 504)
"""Statuses that any path that asks the front-end may answer with."""

BODY: Final = (408, 413, 415)
"""Statuses of paths that take images."""


def blueprint() -> Blueprint:
    """Return the route."""
    routes = Blueprint("openapi", __name__)
    made = document()

    @routes.get("/openapi.json")
    def show() -> Response:
        return respond(made)

    return routes


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Despacho",
            "version": __version__,
            "description": "Image classification. Messages are those of `prediction.v1` in the"
            " JSON mapping of proto3; errors are problem details (RFC 9457).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # Empty: none is needed unless the front-end wants one.
        "security": [{}, {"bearer": []}, {"apiKey": []}],
        "paths": {
            "/v1/models/{model}:predict": {"post": _predict()},
            "/v1/models/{model}:submit": {"post": _submit()},
            "/v1/models": {"get": _list_models()},
            "/v1/models/{model}": {"get": _get_model()},
            "/v1/models/{model}/operations/{operation}": _operation(
                part.MODEL, part.OPERATION, suffix="OfModel"
            ),
            "/v1/operations/{operation}": _operation(part.OPERATION),
            "/v1/stats": {"get": _stats()},
            "/healthz": {"get": _health("alive", "The gateway answers.")},
            "/readyz": {"get": _health("ready", "A front-end can take images.", *(500, 503, 504))},
            "/openapi.json": {"get": _own()},
        },
        "components": {
            "schemas": {
                "Problem": part.PROBLEM_SCHEMA,
                **schemas_of(
                    (
                        pb.PredictResponse.DESCRIPTOR,
                        pb.ListModelsResponse.DESCRIPTOR,
                        operations_pb2.Operation.DESCRIPTOR,
                        admin_pb2.WatchStatsResponse.DESCRIPTOR,
                    )
                ),
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _predict() -> part.Part:
    return {
        "operationId": "predict",
        "summary": "Label one image, or several.",
        "parameters": [part.MODEL, part.TOP_K, part.PRIORITY, part.SCORES, part.TIMEOUT],
        "requestBody": part.image_body(),
        "responses": {
            "200": part.ok(part.each_or_list(PREDICT_RESPONSE, "response"), "The labels."),
            **part.problems(*ALWAYS, *BODY, 404),
        },
    }


def _submit() -> part.Part:
    location = {"description": "Where the operation is.", "schema": {"type": "string"}}
    return {
        "operationId": "submit",
        "summary": "Accept one image, or several, to be labelled later.",
        "parameters": [
            *(part.MODEL, part.TOP_K, part.SCORES, part.DURABILITY),
            *(part.REQUEST_ID, part.TIMEOUT),
        ],
        "requestBody": part.image_body(),
        "responses": {
            "200": part.ok(
                part.each_or_list(OPERATION, "operation"),
                "What became of each of several images; a last problem is that of a body that broke"
                " off, or went wrong, behind them.",
            ),
            "202": part.ok(OPERATION, "Accepted.", Location=location),
            **part.problems(*ALWAYS, *BODY, 404, 409),
        },
    }


def _list_models() -> part.Part:
    return {
        "operationId": "listModels",
        "summary": "List what is, or was, served.",
        "parameters": [part.TIMEOUT],
        "responses": {
            "200": part.ok(reference(pb.ListModelsResponse.DESCRIPTOR), "Without labels."),
            **part.problems(*ALWAYS),
        },
    }


def _get_model() -> part.Part:
    return {
        "operationId": "getModel",
        "summary": "Describe one model, with its labels.",
        "parameters": [part.MODEL, part.TIMEOUT],
        "responses": {
            "200": part.ok(reference(pb.Model.DESCRIPTOR), "The model."),
            **part.problems(*ALWAYS, 404),
        },
    }


def _operation(*parameters: part.Part, suffix: str = "") -> part.Part:
    return {
        "parameters": [*parameters, part.TIMEOUT],
        "get": {
            "operationId": f"getOperation{suffix}",
            "summary": "Tell how far an operation has come, or wait for its end.",
            "parameters": [part.WAIT],
            "responses": {
                "200": part.ok(OPERATION, "As it is now; `done` says whether it has ended."),
                **part.problems(*ALWAYS, 404),
            },
        },
        "delete": {
            "operationId": f"deleteOperation{suffix}",
            "summary": "Forget an operation; cancels it if it has not ended.",
            "responses": {
                "204": {"description": "It is gone.", "headers": part.HEADERS},
                **part.problems(*ALWAYS, 404),
            },
        },
    }


def _stats() -> part.Part:
    return {
        "operationId": "watchStats",
        "summary": "Live figures, as server-sent events: one `stats` about every second.",
        "description": "The data of `stats` is a `WatchStatsResponse`, that of `problem` a"
        " `Problem`, after which figures may come again. Needs a key with the scope `admin` where"
        " keys are needed.",
        "responses": {
            "200": part.ok({"type": "string"}, "Until either side ends it.", "text/event-stream"),
            **part.problems(*ALWAYS, 501),
        },
    }


def _health(name: str, description: str, *statuses: int) -> part.Part:
    schema = {
        "type": "object",
        "properties": {"status": {"type": "string", "const": "SERVING"}},
        "required": ["status"],
        "additionalProperties": False,
    }
    return {
        "operationId": name,
        "summary": description,
        "security": [{}],
        "responses": {"200": part.ok(schema, "It does."), **part.problems(403, *statuses)},
    }


def _own() -> part.Part:
    return {
        "operationId": "openapi",
        "summary": "This document.",
        "security": [{}],
        "responses": {"200": part.ok({"type": "object"}, "OpenAPI 3.1."), **part.problems(403)},
    }
