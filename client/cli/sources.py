"""From the PATHs of the command line to images; contents are not read here."""

import glob
import os
import re
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
from ..images import Image

IMAGE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp"}
)
"""What is taken from a folder. A file that is named is taken whatever it is called."""

_SEPARATORS: Final = re.escape(os.sep + (os.altsep or ""))
_ANY_DEPTH: Final = re.compile(rf"(?:^|(?<=[{_SEPARATORS}]))(?:\*\*(?:[{_SEPARATORS}]+|$))+")

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

    def image(self, max_bytes: int) -> Image:
        """Return what the client loads; standard input is read here, up to `max_bytes` + 1.

        Raises:
            DespachoError: there is no image.
        """
        if self.problem is not None:
            raise self.problem
        # One byte more than allowed, for the client to see that it is too large.
        return self.path or _from_stdin(max_bytes + 1)


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
    elif found := _matches(argument):
        yield from _from_matches(found)
    else:
        yield _without_image(argument, "no file matches this pattern")


def _matches(pattern: str) -> set[str]:
    """Return what a pattern matches; `**` is a folder, and those in it at any depth."""
    before, *behind = _ANY_DEPTH.split(pattern, maxsplit=1)
    # `Path.glob` refuses absolute patterns.
    found = {*glob.glob(before)} if before else {os.curdir}  # noqa: PTH207
    if not behind or not behind[0]:
        return found
    return {
        str(Path(match))
        for top in found
        for folder in _folders(top)
        for match in _matches(os.path.join(glob.escape(folder), behind[0]))  # noqa: PTH118
    }


def _folders(top: str) -> Iterator[str]:
    # `**` of `glob` enters linked folders, too, and never comes out of those in a circle.
    for folder, subfolders, _ in os.walk(top):
        subfolders[:] = _shown(subfolders)
        yield folder


def _shown(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("."))


def _from_matches(found: Iterable[str]) -> Iterator[Source]:
    """Yield what matches stand for; what is in a folder that matches as well, once."""
    folders: set[Path] = set()
    for name in sorted(found):
        path = Path(name)
        if folders.isdisjoint(path.parents):
            if path.is_dir():
                folders.add(path)
            yield from _from_path(name)


def _from_path(name: str) -> Iterator[Source]:
    path = Path(name)
    if path.is_dir():
        yield from _from_folder(name)
    else:
        # Whether it is there shows when it is read.
        yield Source(name, path)


def _from_folder(folder: str) -> Iterator[Source]:
    problems: list[OSError] = []
    links: list[Path] = []
    found = False
    for parent, subfolders, names in os.walk(folder, onerror=problems.append):
        subfolders[:] = _shown(subfolders)
        links += [path for name in subfolders if (path := Path(parent, name)).is_symlink()]
        for name in _shown(names):
            path = Path(parent, name)
            if path.suffix.lower() in IMAGE_SUFFIXES:
                found = True
                yield Source(str(path), path)
    for problem in problems:
        yield _without_image(str(problem.filename), problem.strerror or str(problem))
    if not found and not problems:
        unseen = f"; links to folders are not followed: {links[0]}" if links else ""
        yield _without_image(folder, f"no images in this folder{unseen}")


def _from_url(url: str) -> Iterator[Source]:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        yield _without_image(url, str(error))
        return
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
