"""What the no-op model is asked, and what it should answer."""

import random
from pathlib import Path
from typing import Final

from google.protobuf.message import Message

from prediction.v1 import prediction_pb2 as pb
from worker.engines.null import class_of, sealed

MODEL: Final = "null"

CLASSES: Final = 32
"""Few, so that sorting their scores is no part of what is measured."""

MODEL_TOML: Final = """\
name = "{name}"
version = "1"
engine = "null"

[output]
classes = {classes}
"""


def model_directory(folder: Path, name: str = MODEL) -> Path:
    """Write a model directory of the engine `null`; return it."""
    directory = folder / name
    directory.mkdir()
    (directory / "model.toml").write_text(MODEL_TOML.format(name=name, classes=CLASSES))
    return directory


def payload(size: int, seed: int = 0) -> bytes:
    """Return one that does not compress, the same for the same seed."""
    return sealed(random.Random(seed).randbytes(size))


def answer_to(image: bytes) -> int:
    """Return the class that shows that the payload arrived whole."""
    return class_of(image, CLASSES)


def request(image: bytes, model: str = "", request_id: str = "") -> pb.PredictRequest:
    """Return a request for the best label only."""
    return pb.PredictRequest(model=model, image=image, top_k=1, request_id=request_id)


def framed(message: Message) -> bytes:
    """Return a unary call's body as HTTP/2 carries it: gRPC's five bytes and the message."""
    encoded = message.SerializeToString()
    return b"\0" + len(encoded).to_bytes(4, "big") + encoded


def write_body(path: Path, message: pb.PredictRequest) -> Path:
    """Write a unary call's body into a file; return that."""
    path.write_bytes(framed(message))
    return path
