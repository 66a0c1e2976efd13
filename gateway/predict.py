"""`POST /v1/models/{model}:predict`: label images while they arrive."""

from typing import Any, Final

from flask import Blueprint, Response, g, request
from google.protobuf.message import Message

from client.messages import Messages
from gateway import body, intake, problems
from gateway.held_bytes import HeldBytes
from gateway.json_mapping import respond, to_json
from gateway.parameters import PREDICT, Parameters
from gateway.problems import Refused
from gateway.sending import Sending
from gateway.settings import GatewaySettings
from prediction.v1 import prediction_pb2 as pb

MOST_BYTES: Final = 2**63 - 1
"""What the front-end can be told; its own limit is far below."""


def blueprint(settings: GatewaySettings, upstream: Messages, held: HeldBytes) -> Blueprint:
    """Return the route."""
    routes = Blueprint("predict", __name__)

    @routes.post("/v1/models/<model:model>:predict")
    def predict(model: str) -> Response:
        options = _options(model)
        if body.is_multipart(request):
            return _many(options, settings, upstream, held)
        # Then the front-end refuses what is too large before it arrives.
        options.total_bytes = _announced_bytes()
        sink = Sending(upstream, options, g.caller, held.hold())
        pieces = body.whole(request, max_bytes=settings.max_body_bytes)
        return respond(to_json(intake.one(pieces, sink, g.connection)))

    return routes


def _announced_bytes() -> int:
    size_bytes = body.size_of(request) or 0
    if size_bytes > MOST_BYTES:
        raise Refused(413, "no image has so many bytes", reason="IMAGE_TOO_LARGE", field="image")
    return size_bytes


def _options(model: str) -> pb.UploadOptions:
    parameters = Parameters(request, PREDICT)
    return pb.UploadOptions(
        model=model,
        top_k=parameters.top_k(),
        priority=parameters.priority(),
        include_scores=parameters.include_scores(),
        request_id=g.request_id,
    )


def _many(
    options: pb.UploadOptions, settings: GatewaySettings, upstream: Messages, held: HeldBytes
) -> Response:
    def new_sink(index: int) -> Sending:
        own = pb.UploadOptions()
        own.CopyFrom(options)
        own.request_id = f"{options.request_id[:100]}-{index}"
        return Sending(upstream, own, g.caller, held.hold())

    pieces = body.parts(request, max_bytes=settings.max_body_bytes)
    outcomes = intake.many(pieces, new_sink, g.connection, ends_s=g.caller.ends_s)
    return respond_many(outcomes, "response")


def respond_many(outcomes: list[intake.Outcome[Any]], member: str) -> Response:
    """Return what became of each of several images.

    Args:
        outcomes: in the order of the images.
        member: where an answer is found.
    """
    problem = intake.shared_problem(outcomes)
    if problem is not None:
        return problems.respond(problem)
    g.failed_images = sum(1 for outcome in outcomes if outcome.problem is not None)
    return respond([_item(outcome, member) for outcome in outcomes])


def _item(outcome: intake.Outcome[Message], member: str) -> dict[str, Any]:
    item: dict[str, Any] = {"filename": outcome.filename}
    if outcome.problem is None:
        return item | {member: to_json(outcome.answer)}
    return item | {"problem": outcome.problem.body(g.request_id)}
