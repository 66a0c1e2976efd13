"""Counts what a large message is made of, before it is parsed.

Of whatever is repeated a message may have millions of two bytes each, of which the parser makes
objects of fifty: 17 MiB of them would hold the event loop for half a second and take 500 MiB,
until somebody could look at how many there are. A caller may send one a second whatever its key
says.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from dispatch.errors import InvalidArgument

# A batch of as many images as are accepted has a fifth of this.
MAX_FIELDS: Final = 4096
"""Most fields of a message, those of the messages in it included."""

# So that most calls pay nothing; one with a larger image pays 4 us. As small as this, a message of
# nothing but fields takes 4 ms and 4 MiB.
LARGE_BYTES: Final = 128 * 1024
"""A message that has no more is not looked at."""

NUMBERS_BYTES: Final = 256
"""So many bytes of numbers that are packed into one field count as much as a field: the parser
makes 8 bytes of each."""

_FIXED_BYTES: Final = {1: 8, 3: 0, 4: 0, 5: 4}
"""What follows a tag that is neither of a varint (0) nor of something with a length (2): 64 bits,
the begin or the end of a group, 32 bits."""

_WHOLE_NUMBERS: Final = frozenset(
    {
        FieldDescriptor.CPPTYPE_BOOL,
        FieldDescriptor.CPPTYPE_ENUM,
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What the parser makes something of, by the numbers of the fields of a type."""

    messages: dict[int, Descriptor]
    """Fields that have fields in them."""

    numbers: frozenset[int]
    """Those that may have many numbers in them."""


def check_field_count(message: bytes, kind: Descriptor) -> None:
    """Accept a message that is small, or made of few parts.

    Source: https://protobuf.dev/programming-guides/encoding/

    Args:
        message: not parsed yet.
        kind: its type.

    Raises:
        InvalidArgument: it has more than `MAX_FIELDS`.
        DecodeError: it is no message.
    """
    if len(message) <= LARGE_BYTES:
        return
    try:
        left, number = _left(message, 0, len(message), kind, MAX_FIELDS)
    except (IndexError, KeyError) as error:
        raise DecodeError from error
    if left < 0:
        field = kind.fields_by_number.get(number)
        name = field.name if field is not None else "request"
        raise InvalidArgument(
            name,
            f"the request has more than {MAX_FIELDS} fields, too many of them in {name}; of numbers"
            f" {NUMBERS_BYTES} bytes count as one, so send an encoded file and not its pixels",
        )


def _left(message: bytes, position: int, end: int, kind: Descriptor, left: int) -> tuple[int, int]:
    """Return how many more fields there may be behind these, and the number of the last one.

    It looks at no more of them when that is below 0.
    """
    shape = _shape_of(kind)
    number = 0
    while position < end and left >= 0:
        tag, position = _varint(message, position)
        number = (tag & 0xFFFF_FFFF) >> 3
        left -= 1
        match tag & 7:
            case 0:
                _, position = _varint(message, position)
            case 2:
                size, position = _varint(message, position)
                begin, position = position, position + size
                if position > end:
                    raise IndexError
                if number in shape.messages:
                    left, _ = _left(message, begin, position, shape.messages[number], left)
                elif number in shape.numbers:
                    left -= size // NUMBERS_BYTES
            case other:
                position += _FIXED_BYTES[other]
    if position > end:
        raise IndexError
    return left, number


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Return a number, and the position behind it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return number, position
    raise IndexError


@cache
def _shape_of(kind: Descriptor) -> Shape:
    fields = kind.fields_by_number
    return Shape(
        {number: each.message_type for number, each in fields.items() if each.message_type},
        frozenset(
            number
            for number, each in fields.items()
            if each.is_repeated and each.cpp_type in _WHOLE_NUMBERS
        ),
    )
