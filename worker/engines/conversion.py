"""Keeps models in the cache as engines take them: converted, or for TensorFlow frozen.

    <cache>/<model>-<engine>-<digest>/    the converted model, and TensorFlow's scores of photos

The digest is of the model's content and of all that converts it, so a changed model
or another version makes another folder. A process of its own converts, so that a
worker never has all of TensorFlow in its memory, and a crash is only a failed conversion.
"""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

import numpy as np

from worker.agreement import Agreement, agreement, scores_of
from worker.bundled import prepare
from worker.engine import Engine, Float32Array, UInt8Array
from worker.engines import installed
from worker.engines.child import command
from worker.model_spec import (
    BundledModel,
    KerasApplication,
    ModelChanged,
    ModelError,
    ModelFile,
    ModelSpec,
    ModelUnreadable,
    NotNow,
    NoWeights,
    PixelRule,
)
from worker.prepared_folder import make_once

Target = Literal["tensorflow", "litert", "openvino"]

FILES: Final = {"tensorflow": "graph.pb", "litert": "model.tflite", "openvino": "model.xml"}
REFERENCE: Final = "reference.npy"
PHOTOS: Final = "photos.npy"
"""What the reference is of, as it was decoded: another version of Pillow may decode otherwise."""

WHY_NOT: Final = "why-not.txt"
"""In the place of a frozen graph, if the model cannot be frozen; says why."""

SOURCES: Final = (
    "convert.py",
    "checks.py",
    "scoring_graph.py",
    "tensorflow_engine.py",
    "model_file.py",
    "keras_application.py",
    "tensorflow_library.py",
)
"""Files of this package that decide what is made, and whether."""

NOT_NOW: Final = 75
"""Exit code of `convert.py` if the machine is the reason at this moment, and not the model."""

LIMIT_S: Final = 300
"""How long a conversion may take, unless weights may have to be downloaded first: a line may be
slow."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A model as an engine takes it."""

    spec: ModelSpec
    """From bytes to probabilities: nothing is left to be done around it."""

    path: Path

    folder: Path

    def compared_with(self, engine: Engine, count: int | None = None) -> Agreement:
        """Compare an engine with TensorFlow, on the photos that the reference is of.

        Args:
            engine: of this model.
            count: of photos; None: all.
        """
        images: UInt8Array = np.load(self.folder / PHOTOS, allow_pickle=False)[:count]
        return agreement(self.reference()[:count], scores_of(engine, images))

    def reference(self) -> Float32Array:
        """Return TensorFlow's scores of the photos."""
        scores: Float32Array = np.load(self.folder / REFERENCE, allow_pickle=False)
        return scores


def converted(spec: ModelSpec, target: Target, cache_dir: Path) -> Converted:
    """Return the model converted for an engine; convert it if that was not done.

    Takes some 50 ms if it was, and up to half a minute if not. Any number of processes may call
    this at once.

    Args:
        spec: a model of TensorFlow.
        target: the engine.
        cache_dir: only read if it was done.

    Raises:
        ModelChanged: it was changed meanwhile.
        ModelUnreadable: it cannot be read.
        NotNow: the cache cannot be written, the disk is full, or weights cannot be downloaded.
        ModelError: it cannot be converted.
    """
    of = digest(spec, target)
    folder = cache_dir / f"{spec.name}-{target}-{of}"

    def convert(partial: Path) -> None:
        try:
            _convert(spec, target, partial)
        finally:
            # Another process has read it, later: its graph must not pass for that of the old one,
            # to which somebody may return.
            if digest(spec, target) != of:
                raise ModelChanged(spec)

    try:
        make_once(folder, convert, what=f"the model for {target}")
    except OSError as error:
        raise NotNow(
            f"the model cannot be converted in {cache_dir}: {error.strerror or error};"
            " set WORKER_CACHE_DIR to a directory that can be written"
        ) from error
    plain = spec.model_copy(update={"pixels": PixelRule(), "softmax": False})
    return Converted(spec=plain, path=folder / FILES[target], folder=folder)


def digest(spec: ModelSpec, *engines: str) -> str:
    """Return what changes whenever the model, or what these engines make of it, may change.

    Raises:
        ModelUnreadable: it cannot be read.
    """
    of = hashlib.sha256(spec.model_dump_json(include={"input", "pixels", "softmax"}).encode())
    of.update(str(len(spec.labels)).encode())
    for part in _content(spec):
        of.update(part)
    for engine in ("tensorflow", *engines):
        of.update(f"{engine} {installed.version_of(engine)}".encode())
    for name in SOURCES:
        of.update(Path(__file__).with_name(name).read_bytes())
    return of.hexdigest()[:16]


def _content(spec: ModelSpec) -> Iterator[bytes]:
    match spec.origin:
        case BundledModel():
            yield prepare.digest().encode()
        case KerasApplication(application=application):
            # Its version says which weights are downloaded.
            yield f"{application} {installed.version_of('keras')}".encode()
        case ModelFile(path=path):
            try:
                for file in _files_below(path) if path.is_dir() else _with_weights(path):
                    if file.is_file():
                        yield str(file.relative_to(path.parent)).encode()
                        yield hashlib.sha256(file.read_bytes()).digest()
            except OSError as error:
                raise ModelUnreadable(path, error) from error
        case NoWeights():
            pass


def _files_below(folder: Path) -> list[Path]:
    """Return all files, in order, also those in folders that are links.

    Raises:
        OSError: a folder cannot be read, which `Path.rglob` would pass over.
    """

    def fail(error: OSError) -> None:
        raise error

    files: list[Path] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        # A link to a folder above it would be followed for ever.
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # The same one of two ways to a folder each time.
        folders.sort()
        files += (Path(parent, name) for name in names)
    return sorted(files)


def _with_weights(path: Path) -> list[Path]:
    """Return the file, and the one beside it that has the weights of an OpenVINO model."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def _convert(spec: ModelSpec, target: Target, folder: Path) -> None:
    """Run `convert.py` on an empty folder.

    Raises:
        NotNow, ModelError: it failed.
    """
    for engine in ("tensorflow", target):
        installed.require(engine)
    order = json.dumps(
        {"spec": spec.model_dump(mode="json"), "target": target, "folder": str(folder)}
    )
    with tempfile.TemporaryFile() as said:
        code = _run(order, said, None if isinstance(spec.origin, KerasApplication) else LIMIT_S)
        if code == 0:
            return
        if code is None:
            reason = f"it took longer than {LIMIT_S} s"
        else:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit code {code}"
        kind = NotNow if code == NOT_NOW else ModelError
        raise kind(f"{spec.name}: cannot be converted for {target}: {reason}")


def _run(order: str, said: IO[bytes], limit_s: float | None) -> int | None:
    """Let a process carry out the order; return its exit code, or None if it took too long."""
    with subprocess.Popen(  # noqa: S603 - our own program
        command("worker.engines.convert"),
        stdin=subprocess.PIPE,
        stdout=said,
        stderr=said,
        bufsize=0,
    ) as process:
        try:
            # It ends when this pipe does, so it cannot outlive us.
            assert process.stdin is not None  # noqa: S101 - asked for above
            with suppress(BrokenPipeError):  # then its exit code says why
                process.stdin.write(order.encode() + b"\n")
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.kill()
