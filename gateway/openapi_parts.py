"""What the paths of the OpenAPI document are made of."""

from typing import Any, Final

from gateway.body import MAX_IMAGES
from gateway.parameters import MAX_TOP_K, MAX_WAIT_S, MODEL_NAME, OPERATION_ID
from gateway.problems import CONTENT_TYPE, TYPE_PREFIX, phrase
from prediction.v1 import prediction_pb2 as pb

Part = dict[str, Any]

IMAGE_TYPES: Final = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp")

PROBLEM_SCHEMA: Final[Part] = {
    "type": "object",
    "description": "RFC 9457. `reason` is stable, and explained in docs/errors.md.",
    "properties": {
        "type": {
            "type": "string",
            "examples": [f"{TYPE_PREFIX}QUEUE_FULL", "about:blank"],
        },
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "For a person; may change."},
        "reason": {"type": "string", "examples": ["QUEUE_FULL"]},
        "code": {"type": "string", "description": "The gRPC status, if there was one."},
        "field": {"type": "string", "description": "What of the request is at fault."},
        "advice": {"type": "string", "description": "What to do next."},
        "retry_after": {"type": "number", "description": "When to try again, seconds."},
        "request_id": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail", "request_id"],
    "additionalProperties": False,
}

HEADERS: Final[Part] = {
    "X-Request-Id": {
        "description": "The id of the request, also in the logs of all services.",
        "schema": {"type": "string"},
    }
}

RETRY_HEADERS: Final[Part] = {
    **HEADERS,
    "Retry-After": {
        "description": "When to try again, seconds.",
        "schema": {"type": "integer", "minimum": 0},
    },
}


def parameter(name: str, place: str, schema: Part, description: str, **more: Any) -> Part:
    """Describe a parameter."""
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": description,
        "schema": schema,
        **more,
    }


MODEL: Final = parameter(
    "model",
    "path",
    {"type": "string", "pattern": f"^{MODEL_NAME}$"},
    "Name of the model, such as `efficientnet-lite0`.",
)
OPERATION: Final = parameter(
    "operation", "path", {"type": "string", "pattern": f"^{OPERATION_ID}$"}, "Id of the operation."
)
TIMEOUT: Final = parameter(
    "X-Request-Timeout",
    "header",
    {"type": "number", "exclusiveMinimum": 0},
    "How long the caller will wait, seconds; what is not done then, is not done any more.",
    example=30,
)
TOP_K: Final = parameter(
    "topK",
    "query",
    {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K},
    "How many labels, best first; five if it is not there.",
)
PRIORITY: Final = parameter(
    "priority",
    "query",
    {"type": "string", "enum": list(pb.Priority.keys())},
    "How soon it matters.",
)
SCORES: Final = parameter(
    "includeScores", "query", {"type": "boolean"}, "Whether to return the score of every class."
)
DURABILITY: Final = parameter(
    "durability",
    "query",
    {"type": "string", "enum": list(pb.Durability.keys())},
    "What the accepted operation must survive.",
)
REQUEST_ID: Final = parameter(
    "requestId",
    "query",
    {"type": "string", "format": "uuid", "minLength": 36, "maxLength": 36},
    "Makes it safe to submit again: the same id with the same image is the same operation. Of"
    " several images each has an id that is made of it.",
)
WAIT: Final = parameter(
    "wait",
    "query",
    {"type": "number", "minimum": 0, "maximum": MAX_WAIT_S},
    "How long to wait for the end of the operation, seconds.",
)


def image_body() -> Part:
    """Describe a body with one image, or with several."""
    binary = {"type": "string", "format": "binary"}
    several = {
        "type": "object",
        "properties": {
            "image": {"type": "array", "items": binary, "minItems": 1, "maxItems": MAX_IMAGES}
        },
        "required": ["image"],
        "additionalProperties": False,
    }
    return {
        "required": True,
        "description": "An encoded image (JPEG, PNG, WebP, GIF or BMP) as it is, with any of these"
        " types (or none, or the one that `curl --data-binary` sends); or several, each a part of"
        " the name `image`, and then the answer is a list in the same order.",
        "content": {
            **{kind: {"schema": binary} for kind in (*IMAGE_TYPES, "application/octet-stream")},
            "multipart/form-data": {"schema": several},
        },
    }


def ok(schema: Part, description: str, kind: str = "application/json", **headers: Part) -> Part:
    """Describe a response that went well."""
    return {
        "description": description,
        "headers": {**HEADERS, **headers},
        "content": {kind: {"schema": schema}},
    }


def each_or_list(schema: Part, member: str) -> Part:
    """Describe the answer to one image, or to several."""
    item = {
        "type": "object",
        "properties": {
            "filename": {"type": "string"},
            member: schema,
            "problem": {"$ref": "#/components/schemas/Problem"},
        },
        "required": ["filename"],
        "oneOf": [{"required": [member]}, {"required": ["problem"]}],
        "additionalProperties": False,
    }
    return {"oneOf": [schema, {"type": "array", "items": item, "minItems": 1}]}


def problems(*statuses: int) -> Part:
    """Describe the problems that a path may answer with."""
    return {
        str(status): {
            "description": phrase(status),
            "headers": RETRY_HEADERS if status in {429, 503} else HEADERS,
            "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted(statuses)
    }
