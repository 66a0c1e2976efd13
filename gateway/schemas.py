"""JSON schemas of messages, made from their descriptors: the mapping of proto3, as we write it."""

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

JsonSchema = dict[str, Any]

DURATION: Final[JsonSchema] = {
    "type": "string",
    "pattern": r"^-?\d+(\.\d{1,9})?s$",
    "examples": ["0.006s"],
}
TIMESTAMP: Final[JsonSchema] = {"type": "string", "format": "date-time"}
ANY: Final[JsonSchema] = {
    "type": "object",
    "properties": {"@type": {"type": "string"}},
    "required": ["@type"],
}

_WELL_KNOWN: Final = {
    "google.protobuf.Duration": DURATION,
    "google.protobuf.Timestamp": TIMESTAMP,
    "google.protobuf.Any": ANY,
}

_TYPE: Final[dict[int, JsonSchema]] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "minimum": 0},
    # 64 bits do not fit into the numbers of JSON.
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "pattern": r"^-?\d+$"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "pattern": r"^\d+$"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
}


def reference(message: Descriptor) -> JsonSchema:
    """Return what stands for the schema of a message."""
    return {"$ref": f"#/components/schemas/{message.name}"}


def schemas_of(messages: Iterable[Descriptor]) -> dict[str, JsonSchema]:
    """Return the schemas of messages and of all that they have inside, by name."""
    found: dict[str, JsonSchema] = {}
    waiting = list(messages)
    while waiting:
        message = waiting.pop()
        if message.name in found or message.full_name in _WELL_KNOWN:
            continue
        found[message.name] = _object(message)
        waiting.extend(
            field.message_type for field in message.fields if field.message_type is not None
        )
    return dict(sorted(found.items()))


def _object(message: Descriptor) -> JsonSchema:
    return {
        "type": "object",
        "properties": {field.json_name: _field(field) for field in message.fields},
        # Without presence a field is always written.
        "required": [field.json_name for field in message.fields if not field.has_presence],
        "additionalProperties": False,
    }


def _field(field: FieldDescriptor) -> JsonSchema:
    schema = _value(field)
    return {"type": "array", "items": schema} if field.is_repeated else schema


def _value(field: FieldDescriptor) -> JsonSchema:
    if field.message_type is not None:
        return _WELL_KNOWN.get(field.message_type.full_name) or reference(field.message_type)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        is_bytes = field.type == FieldDescriptor.TYPE_BYTES
        return {"type": "string", **({"format": "byte"} if is_bytes else {})}
    return _TYPE[field.cpp_type]
