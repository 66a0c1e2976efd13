"""Messages of the contract in the JSON mapping of proto3."""

from typing import Any

from flask import Response, json
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

# The error of an operation has them inside, and they are looked up by their names.
from google.rpc import error_details_pb2  # noqa: F401


def to_json(message: Message) -> dict[str, Any]:
    """Return a message as JSON has it; also what is zero or empty, so that it can be seen."""
    return MessageToDict(message, always_print_fields_with_no_presence=True)


def respond(body: Any, status: int = 200) -> Response:
    """Return a response with JSON."""
    return Response(json.dumps(body), status=status, content_type="application/json")
