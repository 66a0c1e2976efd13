"""From what the caller has of one image to the parts of an upload; both clients share it."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Final, Protocol, TypeAlias, runtime_checkable

from prediction.v1 import prediction_pb2

from .cancellation import ends_this_task

CHUNK_BYTES: Final = 256 * 1024
"""Largest chunk that is sent, and how much is read from a file at a time."""


@runtime_checkable
class Readable(Protocol):
    """A binary file, or what reads like one."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""
        ...


Chunks: TypeAlias = Readable | Iterable[bytes]
"""An encoded image in parts of any size."""

AsyncChunks: TypeAlias = Chunks | AsyncIterable[bytes]
"""The same, or parts that must be awaited."""


class Feed:
    """What one upload sends.

    When the caller's chunks raise, the last part is one that a server refuses: it
    must not take what was sent until then for the whole image.
    """

    def __init__(self, options: prediction_pb2.UploadOptions) -> None:
        self._options = prediction_pb2.PredictUploadRequest(options=options)
        self.input_error: BaseException | None = None
        """What the caller's chunks raised."""

    def parts(self, chunks: Chunks) -> Iterator[prediction_pb2.PredictUploadRequest]:
        """Yield the parts, as fast as they are taken."""
        yield self._options
        try:
            for chunk in _read(chunks) if isinstance(chunks, Readable) else chunks:
                yield from _split(chunk)
        except GeneratorExit:
            # gRPC wants no more of them.
            raise
        except BaseException as error:  # noqa: BLE001 - the caller's chunks may raise anything
            self.input_error = error
            yield prediction_pb2.PredictUploadRequest()

    async def parts_async(
        self, chunks: AsyncChunks
    ) -> AsyncIterator[prediction_pb2.PredictUploadRequest]:
        """Yield the parts, as fast as they are taken."""
        yield self._options
        try:
            async for chunk in _asynchronous(chunks):
                for part in _split(chunk):
                    yield part
        except BaseException as error:
            if ends_this_task(error):
                raise
            self.input_error = error
            yield prediction_pb2.PredictUploadRequest()

    def check(self) -> None:
        """Raise what the caller's chunks raised, if they did.

        Raises:
            BaseException: that.
        """
        if self.input_error is not None:
            raise self.input_error


def _split(chunk: bytes) -> Iterator[prediction_pb2.PredictUploadRequest]:
    view = memoryview(chunk)
    for begin in range(0, len(view), CHUNK_BYTES):
        yield prediction_pb2.PredictUploadRequest(chunk=bytes(view[begin : begin + CHUNK_BYTES]))


def _read(file: Readable) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


async def _asynchronous(chunks: AsyncChunks) -> AsyncIterator[bytes]:
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
    elif isinstance(chunks, Readable):
        # Reading a file blocks, and the loop has other things to do.
        while chunk := await asyncio.to_thread(chunks.read, CHUNK_BYTES):
            yield chunk
    else:
        for chunk in chunks:
            yield chunk
