"""One image to be accepted now: collected, as it goes in one message."""

from typing import Any

from client.messages import Call, Messages
from gateway.caller import Caller
from gateway.held_bytes import Hold
from gateway.problems import Refused
from prediction.v1 import prediction_pb2 as pb


class Submitting:
    """Takes one image in pieces.

    Args:
        upstream: the front-end.
        request: what is wanted, without the image.
        caller: on whose behalf.
        hold: the image's place among the bytes of all.
        max_bytes: size of the largest image.
    """

    def __init__(
        self,
        upstream: Messages,
        request: pb.SubmitPredictionRequest,
        caller: Caller,
        hold: Hold,
        *,
        max_bytes: int,
    ) -> None:
        self._upstream = upstream
        self._request = request
        self._caller = caller
        self._hold = hold
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    @property
    def held_bytes(self) -> int:
        """How much of the image is still here, bytes."""
        return self._hold.size_bytes

    def write(self, piece: bytes) -> bool:
        """Take the next bytes; return whether there is any use in more of them."""
        self._size_bytes += len(piece)
        if self._size_bytes > self._max_bytes:
            self.close()
            return False
        if not self._hold.take(len(piece)):
            self.close()
            return False
        self._pieces.append(piece)
        return True

    def finish(self) -> Call[Any]:
        """Submit the image.

        Raises:
            Refused: it is too large, or there was no room for it.
        """
        if self._size_bytes > self._max_bytes:
            raise Refused(
                413,
                f"the image has more than {self._max_bytes} bytes",
                reason="IMAGE_TOO_LARGE",
                field="image",
            )
        self._hold.check()
        image = b"".join(self._pieces)
        self._pieces.clear()
        self._request.image = image
        del image  # a third copy is made when the request is sent
        return self.again()

    def again(self) -> Call[Any]:
        """Submit a complete image once more."""
        return self._upstream.submit(self._request, self._caller.terms())

    def close(self) -> None:
        """Keep nothing of the image; for when it is answered, or given up."""
        self._pieces.clear()
        self._request.ClearField("image")
        self._hold.release()
