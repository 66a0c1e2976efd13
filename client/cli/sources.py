"""From the PATHs of the command line to images; contents are not read here."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

import click
import grpc

from ..errors import DespachoError, InvalidImage
from ..images import MAX_IMAGE_BYTES, Image

IMAGE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp"}
)
"""What is taken from a folder. A file that is named is taken whatever it is called."""

STDIN: Final = "-"

READ_BYTES: Final = 1024 * 1024
"""Most of standard input that is read at once."""


@dataclass(frozen=True, slots=True)
class Source:
    """One image that was asked for, or the reason why there is none."""

    name: str
    """As the user knows it."""

    path: Path | None = None
    """None: standard input."""

    problem: DespachoError | None = None

    @property
    def is_stdin(self) -> bool:
        """Whether it must be read, and may keep who reads it waiting."""
        return self.path is None and self.problem is None

    def image(self) -> Image:
        """Return what the client loads; standard input is read here.

        Raises:
            DespachoError: there is no image.
        """
        if self.problem is not None:
            raise self.problem
        # One byte more than allowed, for the client to see that it is too large.
        return self.path or _from_stdin(MAX_IMAGE_BYTES + 1)


def _from_stdin(size: int) -> bytes:
    """Return at most `size` bytes; if others are images as well, in a thread of gRPC's."""
    # Not through its buffer: when Python ends while a thread waits in that, it aborts.
    raw = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    parts: list[bytes] = []
    while size > 0 and (part := raw.read(min(size, READ_BYTES))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def expand(arguments: Iterable[str]) -> list[Source]:
    """Find the images that the arguments stand for, in their order.

    Raises:
        click.UsageError: standard input was asked for twice.
    """
    sources = [source for argument in arguments for source in _expand(argument)]
    if sum(source.is_stdin for source in sources) > 1:
        raise click.UsageError("standard input (-) can be read only once")
    return sources


def _expand(argument: str) -> Iterator[Source]:
    if argument == STDIN:
        yield Source(STDIN)
    elif "://" in argument or argument.startswith("file:"):
        yield from _from_url(argument)
    elif os.path.lexists(argument) or not glob.has_magic(argument):
        # A file that is there is meant, even if its name looks like a pattern.
        yield from _from_path(argument)
    # `Path.glob` refuses absolute patterns.
    elif found := sorted(glob.glob(argument, recursive=True)):  # noqa: PTH207
        for name in found:
            yield from _from_path(name)
    else:
        yield _without_image(argument, "no file matches this pattern")


def _from_path(name: str) -> Iterator[Source]:
    path = Path(name)
    if path.is_dir():
        yield from _from_folder(name)
    else:
        # Whether it is there shows when it is read.
        yield Source(name, path)


def _from_folder(folder: str) -> Iterator[Source]:
    problems: list[OSError] = []
    found = False
    for parent, subfolders, names in os.walk(folder, onerror=problems.append):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                found = True
                yield Source(str(path), path)
    for problem in problems:
        yield _without_image(str(problem.filename), problem.strerror or str(problem))
    if not found and not problems:
        yield _without_image(folder, "no images in this folder")


def _from_url(url: str) -> Iterator[Source]:
    parts = urlsplit(url)
    if parts.scheme != "file":
        yield _without_image(url, "only file: URLs are read; download it first")
    elif parts.netloc not in {"", "localhost"}:
        yield _without_image(url, "this file: URL names another host")
    else:
        yield from _from_path(url2pathname(parts.path))


def _without_image(name: str, problem: str) -> Source:
    return Source(
        name,
        problem=InvalidImage(
            problem,
            code=grpc.StatusCode.INVALID_ARGUMENT,
            reason="IMAGE_UNREADABLE",
            field="image",
        ),
    )
