"""One image to be accepted now: collected, as it goes in one message."""

from typing import Any

from client.messages import Call, Messages
from gateway.caller import Caller
from gateway.problems import Refused
from prediction.v1 import prediction_pb2 as pb


class Submitting:
    """Takes one image in pieces.

    Args:
        upstream: the front-end.
        request: what is wanted, without the image.
        caller: on whose behalf.
        max_bytes: size of the largest image.
    """

    def __init__(
        self,
        upstream: Messages,
        request: pb.SubmitPredictionRequest,
        caller: Caller,
        *,
        max_bytes: int,
    ) -> None:
        self._upstream = upstream
        self._request = request
        self._caller = caller
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def write(self, piece: bytes) -> bool:
        """Take the next bytes; return whether there is any use in more of them."""
        self._size_bytes += len(piece)
        if self._size_bytes > self._max_bytes:
            self._pieces.clear()
            return False
        self._pieces.append(piece)
        return True

    def finish(self) -> Call[Any]:
        """Submit the image.

        Raises:
            Refused: it is too large.
        """
        if self._size_bytes > self._max_bytes:
            raise Refused(
                413,
                f"the image has more than {self._max_bytes} bytes",
                reason="IMAGE_TOO_LARGE",
                field="image",
            )
        self._request.image = b"".join(self._pieces)
        self._pieces.clear()
        try:
            return self._upstream.submit(self._request, self._caller.terms())
        finally:
            self._request.ClearField("image")

    def abandon(self) -> None:
        """Give the image up."""
        self._pieces.clear()
