"""Submit now, fetch later: `POST …:submit` and `/v1/operations/{id}`."""

from typing import Any, Final
from uuid import UUID, uuid5

from flask import Blueprint, Response, g, request

from client.messages import Call, Messages
from gateway import body, intake
from gateway.caller import TIMEOUT_HEADER
from gateway.connection import answer
from gateway.held_bytes import HeldBytes
from gateway.json_mapping import respond, to_json
from gateway.key_check import KeyCheck
from gateway.parameters import (
    ANY_MODEL,
    OPERATION,
    SUBMIT,
    WAIT_SLACK_S,
    Parameters,
    operation_name,
)
from gateway.predict import respond_many
from gateway.settings import GatewaySettings
from gateway.submitting import Submitting
from prediction.v1 import prediction_pb2 as pb

SHORTEST_WAIT_S: Final = 0.01
"""Whoever waits less only looks, seconds."""


def blueprint(settings: GatewaySettings, upstream: Messages, held: HeldBytes) -> Blueprint:
    """Return the routes."""
    routes = Blueprint("operations", __name__)
    operations = _Operations(settings, upstream, held)

    @routes.post("/v1/models/<model:model>:submit")
    def submit(model: str) -> Response:
        return operations.submit(model)

    @routes.get("/v1/models/<model:model>/operations/<operation_id>")
    def get(model: str, operation_id: str) -> Response:
        return operations.get(operation_name(model, operation_id))

    @routes.delete("/v1/models/<model:model>/operations/<operation_id>")
    def delete(model: str, operation_id: str) -> Response:
        return operations.delete(operation_name(model, operation_id))

    @routes.get("/v1/operations/<operation_id>")
    def get_by_id(operation_id: str) -> Response:
        return operations.get(operation_name(ANY_MODEL, operation_id))

    @routes.delete("/v1/operations/<operation_id>")
    def delete_by_id(operation_id: str) -> Response:
        return operations.delete(operation_name(ANY_MODEL, operation_id))

    return routes


class _Operations:
    """What the routes do.

    Args:
        settings: sizes.
        upstream: the front-end.
        held: the bytes of all images that are here.
    """

    def __init__(self, settings: GatewaySettings, upstream: Messages, held: HeldBytes) -> None:
        self._settings = settings
        self._upstream = upstream
        self._held = held
        self._keys = KeyCheck(upstream, is_needed=settings.require_key)

    def submit(self, model: str) -> Response:
        """Accept one image, or several."""
        parameters = Parameters(request, SUBMIT)
        wanted = pb.SubmitPredictionRequest(
            model=model,
            top_k=parameters.top_k(),
            include_scores=parameters.include_scores(),
            durability=parameters.durability(),
            request_id=parameters.request_id(),
        )
        max_bytes = self._settings.max_body_bytes
        has_parts = body.is_multipart(request)
        was_asked = self._keys.check(g.caller, g.connection)
        if has_parts:
            pieces = body.parts(request, max_bytes=max_bytes)
            outcomes = intake.many(
                pieces,
                lambda index: self._sink(wanted, index),
                g.connection,
                ends_s=g.caller.ends_s,
                # They take no worker's time, and those that wait for the disk wait together.
                window=body.MAX_IMAGES,
                # Who is not told the names of its operations cannot fetch or delete them.
                is_lasting=True,
            )
            return respond_many(outcomes, "operation")
        pieces = body.whole(request, max_bytes=max_bytes)
        operation = intake.one(
            pieces,
            self._sink(wanted, 0),
            g.connection,
            # The question counted as a request of the key, which may have no other one a second.
            patient_until_s=g.caller.ends_s if was_asked else 0,
        )
        response = respond(to_json(operation), status=202)
        response.headers["Location"] = f"/v1/{operation.name}"
        return response

    def get(self, name: str) -> Response:
        """Tell how far an operation has come, or wait for its end."""
        wait_s = Parameters(request, OPERATION).wait_s()
        extra_s = wait_s + WAIT_SLACK_S
        if TIMEOUT_HEADER in request.headers:
            # Whoever says how long the request may take gets the operation as it is then. That is
            # the front-end's to keep: a deadline of its call so soon would often be there first.
            wait_s, extra_s = min(wait_s, g.caller.left_s), WAIT_SLACK_S
        call = (
            self._upstream.wait_operation(name, wait_s, g.caller.terms(extra_s=extra_s))
            if wait_s >= SHORTEST_WAIT_S
            else self._upstream.operation(name, g.caller.terms())
        )
        return respond(to_json(_answer(call)))

    def delete(self, name: str) -> Response:
        """Forget an operation."""
        Parameters(request, ())
        _answer(self._upstream.delete_operation(name, g.caller.terms()))
        return Response(status=204)

    def _sink(self, wanted: pb.SubmitPredictionRequest, index: int) -> Submitting:
        own = pb.SubmitPredictionRequest()
        own.CopyFrom(wanted)
        if index and wanted.request_id:
            # The same one when all of them are sent again.
            own.request_id = str(uuid5(UUID(wanted.request_id), str(index)))
        return Submitting(
            self._upstream,
            own,
            g.caller,
            self._held.hold(),
            max_bytes=self._settings.max_image_bytes,
        )


def _answer(call: Call[Any]) -> Any:
    return answer(call, g.connection)
