"""Trains a tiny classifier of colours and saves it twice, as two model directories.

Run it with the folder that the directories shall be made in:

    .venv/bin/python docs/examples/byo_model.py /tmp/models

It learns in a few seconds, from images that it paints itself, whether an image
is mostly red, green or blue. Two ways to save a model are shown: as a `.keras`
file, and as a SavedModel, which needs no Keras when it is served.
"""

import os
import sys
from pathlib import Path
from typing import Final

# Before TensorFlow is imported: it says a lot about GPUs that are not there.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image

LABELS: Final = ("red", "green", "blue")
SIZE: Final = 32
"""Width and height of the input, pixels."""

MODEL_TOML: Final = """\
name = "{name}"
version = "1"
file = "{file}"

[input]
width = {size}
height = {size}
resize = "stretch"

[pixels]
scale = 255

[output]
labels = "labels.txt"
softmax = true
"""


def painted(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy images that are mostly of one colour, and which.

    Returns:
        Pixels from 0 to 1, shape (count, SIZE, SIZE, 3); class ids, shape (count,).
    """
    rng = np.random.default_rng(seed)
    class_ids = rng.integers(0, len(LABELS), count)
    strong = np.eye(len(LABELS))[class_ids][:, None, None]
    noise = rng.uniform(0, 0.5, (count, SIZE, SIZE, 3))
    return (noise + strong * rng.uniform(0.3, 0.5, (count, 1, 1, 1))).astype("float32"), class_ids


def trained() -> keras.Model:
    """Return a classifier; its outputs are logits, so `model.toml` asks for a softmax."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(len(LABELS)),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(0.02),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(*painted(600, seed=1), epochs=8, verbose=0)
    _, accuracy = model.evaluate(*painted(200, seed=2), verbose=0)
    print(f"accuracy on images it has not seen: {accuracy:.2f}")
    return model


def describe(directory: Path, file: str) -> None:
    """Write what a model directory needs beside the model."""
    (directory / "labels.txt").write_text("\n".join(LABELS) + "\n")
    (directory / "model.toml").write_text(
        MODEL_TOML.format(name=directory.name, file=file, size=SIZE)
    )
    print(f"WORKER_MODEL={directory}")


def main(folder: Path) -> None:
    """Train, save twice, and paint an image to try."""
    model = trained()

    as_keras = folder / "colours-keras"
    as_keras.mkdir(parents=True, exist_ok=True)
    model.save(as_keras / "model.keras")
    describe(as_keras, "model.keras")

    as_saved_model = folder / "colours-saved-model"
    as_saved_model.mkdir(parents=True, exist_ok=True)
    model.export(as_saved_model / "model", verbose=False)
    describe(as_saved_model, "model")

    for label, colour in zip(LABELS, ((200, 40, 40), (40, 200, 40), (40, 40, 200)), strict=True):
        Image.new("RGB", (320, 240), colour).save(folder / f"{label}.png")
    print(f"images to try: {folder}/red.png, green.png, blue.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
