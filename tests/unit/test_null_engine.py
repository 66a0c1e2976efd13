import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dispatch.errors import ImageEmpty, ImageUndecodable
from worker.engines.null import NullEngine, checked, class_of, sealed
from worker.model_directory import decoder, load_engine, open_model
from worker.model_spec import ModelError

TOML = """
name = "null"
version = "1"
engine = "null"

[output]
classes = 1000
"""


def described(folder: Path, toml: str = TOML) -> str:
    (folder / "model.toml").write_text(toml)
    return str(folder)


@pytest.mark.parametrize("size", [0, 1, 5, 10_000])
def test_each_payload_is_answered_with_the_class_that_its_sender_expects(
    tmp_path: Path, size: int
) -> None:
    spec = open_model(described(tmp_path), tmp_path)
    payloads = [sealed(bytes([number]) * size) for number in range(9)]
    images = [decoder(spec, max_pixels=1)(payload) for payload in payloads]
    scores = load_engine(spec, threads=0).predict(np.stack(images))
    assert scores.shape == (len(payloads), len(spec.labels))
    assert scores.sum(axis=1).tolist() == [1.0] * len(payloads)
    expected = [class_of(payload, len(spec.labels)) for payload in payloads]
    assert scores.argmax(axis=1).tolist() == expected


def test_payloads_differ_in_their_class() -> None:
    assert len({class_of(sealed(bytes([number])), 1000) for number in range(50)}) > 40


@pytest.mark.parametrize(
    "damaged",
    [
        sealed(b"content")[:-1],
        sealed(b"content") + b"\0",
        sealed(b"content").replace(b"o", b"0"),
        b"\0" + sealed(b"content")[1:],
        b"\x01",
    ],
    ids=["cut short", "too long", "changed", "wrong checksum", "shorter than a checksum"],
)
def test_a_payload_that_is_not_whole_is_refused(damaged: bytes) -> None:
    with pytest.raises(ImageUndecodable):
        checked(damaged)


def test_a_payload_without_bytes_is_refused() -> None:
    with pytest.raises(ImageEmpty):
        checked(b"")


def test_an_empty_batch_has_no_scores() -> None:
    engine = NullEngine(3)
    assert engine.predict(np.empty((0, 1, 1, 3), np.uint8)).shape == (0, 3)


@pytest.mark.parametrize("key", ['file = "model.keras"', "[input]\nwidth = 1\nheight = 1"])
def test_keys_of_a_real_model_are_refused(tmp_path: Path, key: str) -> None:
    toml = TOML.replace("\n\n", f"\n{key}\n\n")
    with pytest.raises(ModelError, match=r"(file|input): Extra inputs"):
        open_model(described(tmp_path, toml), tmp_path)


def test_it_is_ready_without_tensorflow(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from worker.model_directory import load_engine, open_model\n"
        "load_engine(open_model(sys.argv[1], Path(sys.argv[1])), threads=0)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, described(tmp_path)], check=True)
