"""What foreign clients are tried at, and how they tell what became of it.

Runs in the environment of the client, so it imports nothing but Python's own.
"""

import asyncio
import inspect
import json
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

FEATURES: Final = {
    "contract": "the contract, field by field: names, numbers and types",
    "health": "server live, server ready",
    "server-metadata": "server metadata",
    "model-ready": "model ready; one that is not known is not",
    "model-metadata": "model metadata",
    "model-config": "model configuration",
    "statistics": "model statistics",
    "repository-index": "repository index",
    "infer-raw": "one image, raw contents; `scores` and `labels`",
    "infer-typed": "one image, typed contents; `scores` and `labels`",
    "infer-many": "three images in one request",
    "outputs": "only the outputs that are asked for",
    "classification": "`classification` of `scores`",
    "request-id": "the request's id in the response",
    "model-version": "a version that is served, and one that is not (`NOT_FOUND`)",
    "priority": "`priority` from 1 to 3; others are `INVALID_ARGUMENT`",
    "timeout": "`timeout` of a request (`DEADLINE_EXCEEDED`)",
    "deadline": "deadline of a call (`DEADLINE_EXCEEDED`)",
    "compression": "compressed requests",
    "bad-image": "a bad image among good ones (`INVALID_ARGUMENT`, says which)",
    "bad-tensor": "a tensor that the model does not take (`INVALID_ARGUMENT`)",
    "unknown-model": "an unknown model (`NOT_FOUND`)",
    "model-fails": "a model that raises (`INTERNAL`)",
    "at-once": "many calls at once",
    "cancel": "cancelling a call",
    "stream": "a stream, answered in order",
    "stream-error": "a bad request in a stream fails alone",
    "stream-status": "`triton_grpc_error`: the stream ends with its status",
    "unimplemented": "what is not here (`UNIMPLEMENTED`)",
    "tls": "TLS; a server that is not trusted gets nothing (`UNAVAILABLE`)",
    "api-key": "an API key in the metadata; without it, or with another: `UNAUTHENTICATED`",
    "certificate": "a certificate of the caller; without it no connection (`UNAVAILABLE`)",
}
"""Rows of the table in docs/compatibility.md, in its order."""

MODEL: Final = "colours"
LABELS: Final = ("red", "green", "blue")

REDDISH: Final = "c86414"
GREENISH: Final = "14c864"
BLUISH: Final = "6414c8"
COLOURS: Final = (REDDISH, GREENISH, BLUISH)
"""Images whose answers are known: the scores are the colour."""

RAISES: Final = "00fa00"
"""A colour at which the model raises."""

NO_IMAGE: Final = b"GIF87a, or so it says"

OK: Final = "ok"

CONTRACT: Final = "contract.json"
"""File beside the images: the elements of our contract."""

GUARDED: Final = "guarded.json"
"""File beside the images: a `Guarded`."""


@dataclass(frozen=True)
class Guarded:
    """Servers that want to know who calls, and what they want; files are PEM."""

    keyed: str
    """Address of one with TLS and API keys."""

    mutual: str
    """Address of one with TLS and certificates of callers."""

    roots: str
    """File of the roots of both servers."""

    other_roots: str
    """File of roots that neither comes from."""

    certificate: str
    """File of a certificate for a caller."""

    private_key: str
    """File of its key."""

    api_key: str
    """May predict."""

    def headers(self, api_key: str = "") -> dict[str, str]:
        """Return the metadata of a call, with another key than the right one if it is given."""
        return {"authorization": f"Bearer {api_key or self.api_key}"}


@dataclass(frozen=True)
class Target:
    """The server, and the images."""

    address: str
    folder: Path

    @property
    def guarded(self) -> Guarded:
        """The other servers."""
        return Guarded(**json.loads((self.folder / GUARDED).read_text()))

    def image(self, colour: str) -> bytes:
        """Return an encoded image of one colour."""
        return (self.folder / f"{colour}.png").read_bytes()

    def images(self) -> list[bytes]:
        """Return an image of each of the `COLOURS`."""
        return [self.image(colour) for colour in COLOURS]


Elements = dict[str, list[Any]]
"""Name of a field, a value of an enum or a method → what it must be for both sides."""


def elements_of(*files: Any) -> Elements:
    """Return what a contract consists of.

    Args:
        files: a `FileDescriptorProto` each, of whatever version of protobuf.
    """
    found: Elements = {}
    for file in files:
        for service in file.service:
            for method in service.method:
                streams = [method.client_streaming, method.server_streaming]
                found[f"{service.name}.{method.name}"] = [
                    *(method.input_type, method.output_type),
                    *streams,
                ]
        add_elements(found, "", file.message_type, file.enum_type)
    return found


def add_elements(found: Elements, scope: str, messages: Any, enums: Any) -> None:
    """Add the fields and values of messages and enums, and of those inside."""
    for message in messages:
        name = f"{scope}{message.name}."
        for field in message.field:
            found[f"{name}{field.name}"] = [
                *(field.number, field.label, field.type),
                field.type_name,
            ]
        add_elements(found, name, message.nested_type, message.enum_type)
    for enum in enums:
        found |= {f"{scope}{enum.name}.{value.name}": [value.number] for value in enum.value}


def check_contract(target: Target, *files: Any, may_lack: bool = False) -> None:
    """Check that our contract says nothing else than the client's.

    Args:
        target: has ours.
        files: a `FileDescriptorProto` each.
        may_lack: whether the client may know less than we offer.
    """
    ours: Elements = json.loads((target.folder / CONTRACT).read_text())
    theirs = elements_of(*files)
    common = ours.keys() & theirs.keys()
    assert may_lack or common == ours.keys(), ours.keys() - common
    assert "ModelInferRequest.raw_input_contents" in common
    different = {name: (ours[name], theirs[name]) for name in common if ours[name] != theirs[name]}
    assert not different, different


Cell = Callable[[Target], Awaitable[None] | None]


def run(cells: Mapping[str, Cell], *, packages: Sequence[str]) -> None:
    """Try each cell against the target of the command line; print the outcomes as JSON."""
    target = Target(sys.argv[1], Path(sys.argv[2]))
    outcomes = {feature: outcome(cell, target) for feature, cell in cells.items()}
    versions = {package: version(package) for package in packages}
    json.dump({"versions": versions, "outcomes": outcomes}, sys.stdout)


def outcome(cell: Cell, target: Target) -> str:
    """Return `OK`, or what went wrong."""
    try:
        waiting = cell(target)
        if inspect.iscoroutine(waiting):
            asyncio.run(waiting)
    except Exception:  # noqa: BLE001 - one cell must not hide the others
        return traceback.format_exc()
    return OK


def scores_of(colour: str) -> list[float]:
    """Return what the model says of an image of this colour."""
    return [channel / 255 for channel in bytes.fromhex(colour)]


def best_of(colour: str) -> str:
    """Return the best label of an image of this colour."""
    scores = scores_of(colour)
    return LABELS[scores.index(max(scores))]


def check_scores(found: Sequence[float], colour: str) -> None:
    """Check that scores are those of this colour."""
    wanted = scores_of(colour)
    assert len(found) == len(wanted), found
    assert all(abs(a - b) < 1e-6 for a, b in zip(found, wanted, strict=True)), found


def check_classes(found: Sequence[bytes], colour: str) -> None:
    """Check `score:index:label` of the best classes of this colour."""
    scores = scores_of(colour)
    best = sorted(range(len(scores)), key=lambda index: -scores[index])
    wanted = [f"{scores[index]:f}:{index}:{LABELS[index]}".encode() for index in best]
    assert list(found) == wanted[: len(found)], found
