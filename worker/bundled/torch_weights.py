"""Reads a state dict from the old (pre-zip) torch serialisation, without torch.

Such a file is three pickles (a magic number, a protocol number, facts about the
system that wrote it), a fourth with the state dict, a fifth with the keys of
its storages, and then for each key an int64 element count and the raw
little-endian elements.

A pickle is a program. The one here may build dictionaries, tensors and storage
types and nothing else: every other name in it is refused before it is looked up.
"""

import io
import math
import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Never, TypeGuard

import numpy as np
import numpy.typing as npt

Tensor = npt.NDArray[np.generic]

MAGIC: Final = 0x1950A86A20F9469CFC6C
PROTOCOL: Final = 1001

STORAGE_TYPES: Final[Mapping[str, str]] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
}
"""Element type, as numpy spells it, of each storage class."""

COUNT: Final = struct.Struct("<q")
"""The element count before the elements of a storage."""


class WeightsError(Exception):
    """The file is not a state dict in the old torch serialisation, or asks for more than that."""


@dataclass(frozen=True)
class _Storage:
    """One run of elements, known by name before its data is read."""

    key: str
    dtype: np.dtype[np.generic]
    count: int


@dataclass(frozen=True)
class _View:
    """A tensor before its storage is read; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, elements: Tensor) -> Tensor:
        """Return the tensor, given the elements of its storage."""
        return np.lib.stride_tricks.as_strided(
            elements[self.offset :],
            self.shape,
            [stride * elements.itemsize for stride in self.strides],
            writeable=False,
        )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict, by name.

    Args:
        path: file written by `torch.save` of torch before 1.6.

    Raises:
        WeightsError: the file is anything else, or damaged.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    stream = io.BytesIO(data)
    try:
        views = _read_views(stream)
        storages = _read_storages(stream, data, views)
    except WeightsError as error:
        raise WeightsError(f"{path.name}: {error}") from None
    except Exception as error:
        # A damaged pickle may raise anything at all.
        raise WeightsError(f"{path.name}: damaged: {error!r}") from error
    return {name: view.of(storages[view.storage.key]) for name, view in views.items()}


def _read_views(stream: io.BytesIO) -> dict[str, _View]:
    """Read the first four pickles; return the state dict with its tensors still empty."""
    if _load_plain(stream) != MAGIC:
        raise WeightsError("it does not begin with torch's old magic number")
    if (protocol := _load_plain(stream)) != PROTOCOL:
        raise WeightsError(f"its protocol is {protocol!r}, not {PROTOCOL}")
    system = _load_plain(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError("it was not written by a little-endian system")
    state = _StateDictUnpickler(stream).load()
    if not isinstance(state, dict):
        raise WeightsError("it holds no state dict")
    for name, view in state.items():
        if not isinstance(name, str) or not isinstance(view, _View):
            raise WeightsError(f"its entry {name!r} is not a named tensor")
    return dict(state)


def _read_storages(
    stream: io.BytesIO, data: bytes, views: Mapping[str, _View]
) -> dict[str, Tensor]:
    """Read the fifth pickle and the elements after it; return the storages by key."""
    expected = {view.storage.key: view.storage for view in views.values()}
    keys = _load_plain(stream)
    if not isinstance(keys, list) or sorted(keys) != sorted(expected):
        raise WeightsError("its storages are not those of its tensors")
    storages: dict[str, Tensor] = {}
    position = stream.tell()
    for key in keys:
        storage = expected[key]
        (count,) = COUNT.unpack_from(data, position)
        position += COUNT.size
        if count != storage.count:
            raise WeightsError(f"storage {key!r} has {count} elements, not {storage.count}")
        storages[key] = np.frombuffer(data, storage.dtype, count, position)
        position += storages[key].nbytes
    if position != len(data):
        raise WeightsError(f"{len(data) - position} bytes are left over at its end")
    for name, view in views.items():
        if view.storage != expected[view.storage.key]:
            raise WeightsError(f"tensor {name!r} disagrees about storage {view.storage.key!r}")
    return storages


def _load_plain(stream: io.BytesIO) -> object:
    """Read a pickle of numbers, strings, lists and dictionaries."""
    return _PlainUnpickler(stream).load()


def _rebuild_tensor(  # noqa: PLR0917 - the pickle calls it by position
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    requires_grad: object = None,  # noqa: ARG001 - part of the pickled call
    hooks: object = None,  # noqa: ARG001 - part of the pickled call
    metadata: object = None,  # noqa: ARG001 - part of the pickled call
) -> _View:
    """Stand in for `torch._utils._rebuild_tensor_v2`, which the pickle calls for each tensor."""
    if not isinstance(storage, _Storage) or not isinstance(offset, int):
        raise WeightsError("a tensor has no storage")
    if not _is_counts(shape) or not _is_counts(strides) or len(shape) != len(strides):
        raise WeightsError(f"a tensor has the shape {shape!r} and the strides {strides!r}")
    # A view may permute the axes. It may not repeat elements, because then a
    # small file could ask for any amount of memory.
    size = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if offset < 0 or size > storage.count or (size and last >= storage.count):
        raise WeightsError(f"a tensor reaches beyond storage {storage.key!r}")
    return _View(storage, offset, shape, strides)


def _is_counts(value: object) -> TypeGuard[tuple[int, ...]]:
    """Return whether this is a tuple of numbers that are not negative."""
    return isinstance(value, tuple) and all(isinstance(n, int) and n >= 0 for n in value)


class _PlainUnpickler(pickle.Unpickler):
    """Admits no name."""

    def find_class(self, module: str, name: str) -> Never:
        """Refuse, before anything is imported."""
        raise WeightsError(f"it names {module}.{name}, which is not allowed")

    def persistent_load(self, pid: object) -> object:
        """Refuse: only the state dict refers to storages."""
        raise WeightsError(f"it refers to {pid!r}, which is not allowed here")


class _StateDictUnpickler(_PlainUnpickler):
    """Admits dictionaries, tensors and storage types."""

    def find_class(self, module: str, name: str) -> object:  # type: ignore[override]
        """Return what one of the few allowed names stands for."""
        match module, name:
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                return _rebuild_tensor
            case "torch", _ if name in STORAGE_TYPES:
                return np.dtype(STORAGE_TYPES[name])
        return super().find_class(module, name)

    def persistent_load(self, pid: object) -> _Storage:
        """Return the storage that `pid` names; its elements come later in the file."""
        match pid:
            case ("storage", np.dtype() as dtype, str(key), _, int(count), None) if count >= 0:
                return _Storage(key, dtype, count)
        raise WeightsError(f"it refers to {pid!r}, which is no storage")
