"""Strategies: messages of any type, made from its descriptor; good ones, odd ones, broken ones."""

from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from tests.fuzz.images import samples
from tests.worker_process import MODEL

MAX_DEPTH: Final = 4
KNOWN_ID: Final = "11111111-2222-4333-8444-555555555555"

TEXTS: Final = (
    *("", MODEL, "efficientnet-lite0", "no-such-model", "models/-", f"models/{MODEL}", "image"),
    *(f"models/{MODEL}/operations/{KNOWN_ID}", f"models/{MODEL}/operations/x", KNOWN_ID),
    *(f"models/{MODEL}/deadLetters/1-1", f"models/{MODEL}/deadLetters/99999999999999999999-0"),
    *("\x00", "a\x00b", "\n", "../../etc/passwd", "%s%n{0}", "{m}", "é" * 200, "x" * 10_000),
    *("BYTES", "scores", "labels", "readiness", "MQ==", "Y29sb3VycyAx", "🙂", "\ufffe", "1", "-1"),
    *("google.longrunning.Operations", "prediction.v1.PredictRequest", "grpc.health.v1.Health"),
    *("Y29sb3VycyA5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "MS0x", "prediction/v1/admin.proto"),
)
"""What means something to somebody; the tokens are of pages."""

BOUNDS: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


def whole_numbers(least: int, most: int) -> st.SearchStrategy[int]:
    """Return small numbers, the ends, and any."""
    return st.one_of(
        st.integers(max(least, -2), 8),
        st.sampled_from((least, least + 1, most - 1, most)),
        st.integers(least, most),
    )


def texts() -> st.SearchStrategy[str]:
    """Return texts that mean something, and any."""
    return st.one_of(st.sampled_from(TEXTS), st.text(max_size=40))


def contents() -> st.SearchStrategy[bytes]:
    """Return bytes that are an image, and any."""
    good = st.sampled_from(sorted(samples())).map(lambda name: samples()[name])
    raw = good.map(lambda image: len(image).to_bytes(4, "little") + image)
    return st.one_of(good, raw, st.binary(max_size=60))


def scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Return values of a field that is no message."""
    kind = field.cpp_type
    if kind in BOUNDS:
        return whole_numbers(*BOUNDS[kind])
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return contents() if field.type == FieldDescriptor.TYPE_BYTES else texts()
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    return st.floats(width=32)


def fill(draw: st.DrawFn, message: Any, depth: int) -> None:
    """Set some fields of a message."""
    for field in message.DESCRIPTOR.fields:
        if not draw(st.integers(0, 3)):
            continue
        value: Any = getattr(message, field.name)
        is_message = field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
        if is_message and depth >= MAX_DEPTH:
            continue
        if not field.is_repeated:
            if is_message:
                getattr(message, field.name).SetInParent()
                fill(draw, getattr(message, field.name), depth + 1)
            else:
                setattr(message, field.name, draw(scalars(field)))
        elif is_message and field.message_type.GetOptions().map_entry:
            fill_map(draw, field, value, depth)
        else:
            for _ in range(draw(st.integers(0, 3))):
                if is_message:
                    fill(draw, value.add(), depth + 1)
                else:
                    value.append(draw(scalars(field)))


def fill_map(draw: st.DrawFn, field: FieldDescriptor, value: Any, depth: int) -> None:
    """Set some entries of a map; parameters of the Open Inference Protocol by their real names."""
    kind: Any = field.message_type
    entry = kind.fields_by_name
    names = ("priority", "timeout", "classification", "triton_grpc_error", "shared_memory_region")
    for _ in range(draw(st.integers(0, 2))):
        is_text = entry["key"].cpp_type == FieldDescriptor.CPPTYPE_STRING
        key = draw(st.one_of(st.sampled_from(names), texts()) if is_text else scalars(entry["key"]))
        if entry["value"].cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            fill(draw, value[key], depth + 1)
        else:
            value[key] = draw(scalars(entry["value"]))


@st.composite
def well_formed(draw: st.DrawFn, message_class: Any) -> bytes:
    """Return a message that can be parsed."""
    message = message_class()
    fill(draw, message, 0)
    return bytes(message.SerializeToString())


@st.composite
def broken(draw: st.DrawFn, message_class: Any) -> bytes:
    """Return a message with some of its bytes changed, which also breaks texts."""
    data = bytearray(draw(well_formed(message_class)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


def tag(number: int, kind: int) -> bytes:
    """Return the tag of a field on the wire."""
    return varint(number << 3 | kind)


def varint(value: int) -> bytes:
    """Return a number on the wire."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def nested(number: int, depth: int) -> bytes:
    """Return a message within a message, and so on."""
    data = b""
    for _ in range(depth):
        data = tag(number, 2) + varint(len(data)) + data
    return data


def odd(descriptor: Descriptor) -> st.SearchStrategy[bytes]:
    """Return what a parser has to look out for."""
    numbers = sorted(field.number for field in descriptor.fields) or [1]
    number = st.one_of(st.sampled_from(numbers), st.sampled_from([15, 2**29 - 1]))
    count = st.sampled_from([1, 99, 101, 3_000])
    return st.one_of(
        st.binary(max_size=200),
        st.builds(nested, number, count),
        st.builds(lambda n, c: tag(n, 3) * c, number, count),  # groups that do not end
        st.builds(lambda n, c: tag(n, 3) * c + tag(n, 4) * c, number, count),
        st.builds(lambda n: tag(n, 2) + varint(2**63), number),  # longer than the message
        st.builds(lambda n, c: (tag(n, 2) + b"\x00") * c, number, count.map(lambda c: c * 30)),
        st.builds(lambda n, c: (tag(n, 0) + b"\xff" * 9 + b"\x01") * c, number, count),
        st.builds(lambda n, c: tag(n, 2) + varint(c) + b"\xff" * c, number, count),
        st.builds(lambda n, c: tag(n, 2) + varint(c) + b"\x00" * c, number, count),
    )


def messages(message_class: Any) -> st.SearchStrategy[bytes]:
    """Return what somebody may send as a message of a type."""
    return st.one_of(
        well_formed(message_class),
        well_formed(message_class),
        broken(message_class),
        odd(message_class.DESCRIPTOR),
    )
