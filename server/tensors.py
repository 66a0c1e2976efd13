"""How tensors lie in messages of the Open Inference Protocol: raw or typed; no I/O.

Raw is one `bytes` per tensor, little-endian, row by row; each element of datatype
BYTES is preceded by its length. Typed is a list of numbers or of `bytes`.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from dispatch.errors import InvalidArgument
from inference import grpc_predict_v2_pb2 as pb

BYTES: Final = "BYTES"
"""Datatype of elements that are `bytes`."""

FP32: Final = "FP32"
"""Datatype of elements that are numbers of 32 bits."""

_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class BytesTensor:
    """Texts, or whatever else is not a number."""

    name: str
    shape: tuple[int, ...]
    elements: Sequence[bytes]
    datatype: Final = BYTES

    def raw(self) -> bytes:
        """Return the elements in their raw form."""
        return b"".join(
            part for element in self.elements for part in (_LENGTH.pack(len(element)), element)
        )

    def typed(self) -> pb.InferTensorContents:
        """Return the elements in their typed form."""
        return pb.InferTensorContents(bytes_contents=self.elements)


@dataclass(frozen=True, slots=True)
class Fp32Tensor:
    """Numbers."""

    name: str
    shape: tuple[int, ...]
    elements: Sequence[float]
    datatype: Final = FP32

    def raw(self) -> bytes:
        """Return the elements in their raw form."""
        return struct.pack(f"<{len(self.elements)}f", *self.elements)

    def typed(self) -> pb.InferTensorContents:
        """Return the elements in their typed form."""
        return pb.InferTensorContents(fp32_contents=self.elements)


Tensor: TypeAlias = BytesTensor | Fp32Tensor


def add_outputs(
    response: pb.ModelInferResponse, tensors: Iterable[Tensor], *, is_raw: bool
) -> None:
    """Put `tensors` into `response`, all raw or all typed."""
    for tensor in tensors:
        response.outputs.add(
            name=tensor.name,
            datatype=tensor.datatype,
            shape=tensor.shape,
            contents=None if is_raw else tensor.typed(),
        )
        if is_raw:
            response.raw_output_contents.append(tensor.raw())


def split_raw_bytes(raw: bytes, count: int, *, field: str) -> list[bytes]:
    """Return the elements of a raw tensor of datatype BYTES.

    Args:
        raw: the elements, each preceded by its length.
        count: how many there must be.
        field: what to call it in an error.

    Raises:
        InvalidArgument: there are fewer or more, or the last is cut short.
    """
    elements: list[bytes] = []
    start = 0
    # Ends as soon as there is one too many: millions may be empty.
    while start < len(raw) and len(elements) <= count:
        begin = start + _LENGTH.size
        if begin > len(raw):
            raise InvalidArgument(field, f"{field} ends within a length; each takes 4 bytes")
        (length,) = _LENGTH.unpack_from(raw, start)
        start = begin + length
        if start > len(raw):
            raise InvalidArgument(
                field,
                f"{field} ends within element {len(elements)}: its length is {length} bytes, "
                f"{len(raw) - begin} are left; is it preceded by its length, little-endian?",
            )
        elements.append(raw[begin:start])
    if len(elements) != count:
        found = f"more than {count}" if len(elements) > count else str(len(elements))
        raise InvalidArgument(field, f"{field} has {found} elements; the shape says {count}")
    return elements


def typed_bytes(contents: pb.InferTensorContents, count: int, *, field: str) -> list[bytes]:
    """Return the elements of a typed tensor of datatype BYTES.

    Raises:
        InvalidArgument: there are fewer or more, or elements of another type.
    """
    others = [each.name for each, _ in contents.ListFields() if each.name != "bytes_contents"]
    if others:
        raise InvalidArgument(field, f"{field} has {others[0]}; datatype BYTES has bytes_contents")
    found = len(contents.bytes_contents)
    if found != count:
        raise InvalidArgument(field, f"{field} has {found} elements; the shape says {count}")
    return list(contents.bytes_contents)
