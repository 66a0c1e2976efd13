"""One image on its way from a caller to the front-end, never here as a whole if it is large."""

import queue
from collections.abc import Iterator
from typing import Final

from client.messages import Call, Messages
from gateway.caller import Caller
from gateway.held_bytes import Hold
from prediction.v1 import prediction_pb2 as pb

SMALL_BYTES: Final = 256 * 1024
"""An image up to this size goes in one message, which costs least; a larger one in parts,
while it arrives."""

PARTS_WAITING: Final = 2
"""Parts that may wait to be sent; a caller who is faster is slowed down by TCP."""

LOOK_EVERY_S: Final = 0.1
"""How often it is looked whether the front-end still wants the rest."""


class Sending:
    """Takes one image in pieces.

    Args:
        upstream: the front-end.
        options: what is wanted.
        caller: on whose behalf.
        hold: the image's place among the bytes of all; for what was collected before
            the image was sent on, which is more than what waits afterwards.
    """

    def __init__(
        self, upstream: Messages, options: pb.UploadOptions, caller: Caller, hold: Hold
    ) -> None:
        self._upstream = upstream
        self._options = options
        self._caller = caller
        self._hold = hold
        self._begun: list[bytes] = []
        self._begun_bytes = 0
        self._parts: queue.Queue[bytes] = queue.Queue(PARTS_WAITING)
        self._call: Call[pb.PredictResponse] | None = None
        self._whole: pb.PredictRequest | None = None

    @property
    def held_bytes(self) -> int:
        """How much of the image is still here, bytes."""
        return self._hold.size_bytes

    def write(self, piece: bytes) -> bool:
        """Take the next bytes; return whether there is any use in more of them."""
        if self._call is not None:
            return self._put(piece)
        if not self._hold.take(len(piece)):
            self.close()
            return False
        self._begun.append(piece)
        self._begun_bytes += len(piece)
        if self._begun_bytes <= SMALL_BYTES:
            return True
        self._call = self._upstream.predict_upload(
            self._options, self._take(), self._caller.terms()
        )
        begun, self._begun = b"".join(self._begun), []
        return self._put(begun)

    def finish(self) -> Call[pb.PredictResponse]:
        """Say that the image is complete; return what will have its labels.

        Raises:
            Refused: there was no room for it.
        """
        self._hold.check()
        if self._call is not None:
            self._put(b"")
            return self._call
        options = self._options
        self._whole = pb.PredictRequest(
            model=options.model,
            image=b"".join(self._begun),
            top_k=options.top_k,
            request_id=options.request_id,
            priority=options.priority,
            include_scores=options.include_scores,
        )
        self._begun.clear()
        return self._send_whole(self._whole)

    def again(self) -> Call[pb.PredictResponse] | None:
        """Send a complete image once more; None: it went on in parts."""
        return self._send_whole(self._whole) if self._whole is not None else None

    def _send_whole(self, request: pb.PredictRequest) -> Call[pb.PredictResponse]:
        self._call = self._upstream.predict(request, self._caller.terms())
        return self._call

    def close(self) -> None:
        """Keep nothing of the image; for when it is answered, or given up."""
        self._begun.clear()
        self._whole = None
        if self._call is not None:
            self._call.cancel()
            self._put(b"")
        self._hold.release()

    def _put(self, piece: bytes) -> bool:
        while self._call is not None and not self._call.has_ended:
            try:
                self._parts.put(piece, timeout=LOOK_EVERY_S)
            except queue.Full:
                continue
            return True
        return False

    def _take(self) -> Iterator[bytes]:
        """Yield the parts, in the thread that sends them."""
        while self._call is None or not self._call.has_ended:
            try:
                piece = self._parts.get(timeout=LOOK_EVERY_S)
            except queue.Empty:
                continue
            if not piece:
                return
            yield piece
