"""One image in chunks: what may come next, and when it is too much."""

from collections.abc import AsyncIterator
from io import BytesIO

from dispatch.errors import ImageTooLarge, InvalidArgument
from prediction.v1 import prediction_pb2 as pb
from server import validation
from server.receiving import Share


class Upload:
    """Reads the messages of one upload, and no further than the first bad one.

    Args:
        requests: first the options, then the chunks.
        share: counts the bytes that were received.
        max_bytes: size of the largest image.
    """

    def __init__(
        self, requests: AsyncIterator[pb.PredictUploadRequest], share: Share, *, max_bytes: int
    ) -> None:
        self._requests = requests
        self._share = share
        self._max_bytes = max_bytes
        self._total_bytes = 0

    async def options(self) -> pb.UploadOptions:
        """Return what the first message says.

        Raises:
            InvalidArgument: there is no message, or it is another one.
            ImageTooLarge: the announced size is above the limit.
            QueueFull: there is no room for the announced size now.
        """
        first = await anext(self._requests, None)
        if first is None:
            raise InvalidArgument("options", "the upload has no options")
        if first.WhichOneof("part") != "options":
            raise InvalidArgument("options", "the first message of an upload must be its options")
        self._total_bytes = validation.to_total_bytes(
            first.options.total_bytes, max_bytes=self._max_bytes
        )
        # Nothing is set aside: a caller that announces much and sends nothing
        # would keep others out.
        self._share.check(self._total_bytes)
        return first.options

    async def image(self) -> bytes:
        """Return all chunks together; there may be none.

        The end of the stream may also be that the caller has gone: gRPC cancels the
        call in the next moment, and with it the job of what may be half an image.

        Raises:
            InvalidArgument: a message is no chunk, or the size is not the announced one.
            ImageTooLarge: the limit was passed.
            QueueFull: there is no room for a chunk.
        """
        # One buffer that grows, and becomes the image without being copied: a list
        # of chunks of a byte each would take fifty times their size.
        buffer = BytesIO()
        async for request in self._requests:
            if request.WhichOneof("part") != "chunk":
                raise InvalidArgument(*_not_a_chunk(request))
            self._check(buffer.tell() + len(request.chunk))
            self._share.add(len(request.chunk))
            buffer.write(request.chunk)
        if self._total_bytes and buffer.tell() != self._total_bytes:
            raise _other_than_announced(buffer.tell(), self._total_bytes)
        return buffer.getvalue()

    def _check(self, received_bytes: int) -> None:
        if received_bytes > self._max_bytes:
            raise ImageTooLarge(
                f"the image has at least {received_bytes} bytes; "
                f"the limit is {self._max_bytes} bytes"
            )
        if self._total_bytes and received_bytes > self._total_bytes:
            raise _other_than_announced(received_bytes, self._total_bytes)


def _not_a_chunk(request: pb.PredictUploadRequest) -> tuple[str, str]:
    if request.WhichOneof("part") == "options":
        return "options", "an upload has options only in its first message"
    return "chunk", "the message has no chunk"


def _other_than_announced(received_bytes: int, total_bytes: int) -> InvalidArgument:
    return InvalidArgument(
        "total_bytes", f"{total_bytes} bytes were announced, {received_bytes} came"
    )
