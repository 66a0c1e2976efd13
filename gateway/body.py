"""The bytes of a request's body, as one image or as many, in pieces and never as a whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from flask import Request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from gateway.chunked_body import BrokenBody
from gateway.connection import connection_of, stopping
from gateway.problems import Refused

PIECE_BYTES: Final = 64 * 1024
PART_NAME: Final = "image"
"""Name of each part of a multipart body."""

MAX_IMAGES: Final = 256
"""Most images of one request."""

MAX_PART_HEADER_BYTES: Final = 256 * 1024
"""Most bytes of a multipart body that are kept to find where a part begins or ends."""

# `--data-binary` of curl says that a body is a form. Whatever it is, it says nothing.
_SAYS_NOTHING: Final = {
    "",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "binary/octet-stream",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of an image."""

    data: bytes
    begins: bool
    """Whether they are its first."""
    ends: bool
    """Whether they are its last."""
    filename: str = ""


def is_multipart(request: Request) -> bool:
    """Say whether the body has several parts.

    Raises:
        Refused: it can have no image at all.
    """
    kind = parse_options_header(request.headers.get("Content-Type", ""))[0].lower()
    if kind == "multipart/form-data":
        return True
    if kind not in _SAYS_NOTHING and not kind.startswith("image/"):
        raise Refused(
            415,
            "send an image as image/*, application/octet-stream or multipart/form-data",
            reason="MEDIA_TYPE_UNSUPPORTED",
            field="Content-Type",
        )
    return False


def size_of(request: Request) -> int | None:
    """Return the announced size of the body, bytes; None if there is none.

    Raises:
        Refused: there are two that contradict each other.
    """
    if request.headers.get("Transfer-Encoding"):
        if "Content-Length" in request.headers:
            # What a proxy takes for the end of this request may not be what we do.
            raise Refused(400, "Content-Length and Transfer-Encoding exclude each other")
        return None
    return request.content_length or 0


def whole(request: Request, *, max_bytes: int) -> Iterator[Piece]:
    """Yield a body that is one image.

    Args:
        request: its body is read while the pieces are taken.
        max_bytes: of the body; 0: as many as there are.
    """
    begins = True
    for data in _pieces(request, max_bytes=max_bytes):
        yield Piece(data, begins=begins, ends=False)
        begins = False
    yield Piece(b"", begins=begins, ends=True)


def parts(request: Request, *, max_bytes: int) -> Iterator[Piece]:
    """Yield a multipart body: one image after the other.

    Raises:
        Refused: it is not what it says it is.
    """
    boundary = parse_options_header(request.headers.get("Content-Type", ""))[1].get("boundary", "")
    if not boundary or not boundary.isascii():
        raise Refused(400, "the content type names no boundary", field="Content-Type")
    decoder = _Decoder(boundary.encode(), max_form_memory_size=MAX_PART_HEADER_BYTES)
    try:
        yield from _decoded(decoder, _pieces(request, max_bytes=max_bytes))
    except RequestEntityTooLarge:
        raise Refused(400, "a part has too large headers", field="body") from None
    except ValueError as error:
        raise Refused(400, "the body is not multipart/form-data", field="body") from error


class _Decoder(MultipartDecoder):
    """werkzeug's, for file names of any encoding."""

    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        try:
            return super()._parse_headers(data)
        except UnicodeDecodeError:
            # Browsers send UTF-8, but curl what the disk has. A name is a label in our answer,
            # and an odd one is worth more than none of the form's images.
            return super()._parse_headers(data.decode("latin-1").encode())


def _decoded(decoder: MultipartDecoder, pieces: Iterator[bytes]) -> Iterator[Piece]:
    count = 0
    begins, filename = True, ""
    while True:
        event = decoder.next_event()
        if isinstance(event, NeedData):
            decoder.receive_data(next(pieces, None))
        elif isinstance(event, Field | File):
            if event.name != PART_NAME or not isinstance(event, File):
                raise Refused(400, f"each part must be a file named {PART_NAME!r}", field="body")
            count += 1
            if count > MAX_IMAGES:
                raise Refused(400, f"the body has more than {MAX_IMAGES} images", field="image")
            begins, filename = True, event.filename
        elif isinstance(event, Data):
            yield Piece(event.data, begins=begins, ends=not event.more_data, filename=filename)
            begins = False
        elif isinstance(event, Epilogue):
            break
    if count == 0:
        raise Refused(400, "the body has no image", reason="IMAGE_EMPTY", field="image")


def _pieces(request: Request, *, max_bytes: int) -> Iterator[bytes]:
    """Yield the body as it arrives.

    Raises:
        Refused: it has more than `max_bytes`, comes too slowly, breaks off, or the gateway stops.
    """
    announced_bytes = size_of(request)
    if max_bytes and announced_bytes and announced_bytes > max_bytes:
        raise _too_large(max_bytes)
    stream = request.environ["wsgi.input"]
    received_bytes = 0
    try:
        while announced_bytes is None or received_bytes < announced_bytes:
            left = PIECE_BYTES if announced_bytes is None else announced_bytes - received_bytes
            data: bytes = stream.read(min(PIECE_BYTES, left))
            if not data and announced_bytes is None:
                return
            if not data:
                raise BrokenBody("the body was cut short")
            received_bytes += len(data)
            if max_bytes and received_bytes > max_bytes:
                raise _too_large(max_bytes)
            yield data
    except TimeoutError as error:
        raise Refused(408, "the body came too slowly", reason="BODY_TOO_SLOW") from error
    except OSError as error:
        if connection_of(request.environ).is_cut:
            raise stopping() from error
        raise Refused(400, f"the body is broken: {error}", reason="BODY_BROKEN") from error


def _too_large(max_bytes: int) -> Refused:
    return Refused(413, f"the body has more than {max_bytes} bytes", reason="BODY_TOO_LARGE")
