"""Many images in one message: which comes next, and what becomes of each."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from dispatch.errors import Draining
from prediction.v1 import prediction_pb2 as pb
from server import validation
from server.call_record import CallRecord, ImageRecord
from server.labelling import Labelling, Options, outcome
from server.stream_window import StreamWindow


class Batch:
    """Answers the images of one message, each on its own.

    Args:
        request: the message; its options and its size were checked.
        labelling: labels one image.
        options: what is wanted of all images.
        call: the call they belong to; its `request_id` is that of the batch.
        remaining_s: says how long the caller will still wait, seconds.
    """

    def __init__(
        self,
        request: pb.PredictBatchRequest,
        labelling: Labelling,
        options: Options,
        call: CallRecord,
        remaining_s: Callable[[], float],
    ) -> None:
        self._images = request.images
        self._labelling = labelling
        self._options = options
        self._call = call
        self._remaining_s = remaining_s
        # The message is here in full, so a server that shuts down goes on with it
        # for as long as it waits for any reply.
        self._has_been_given_up = asyncio.Event()

    async def responses(self, *, window: int) -> AsyncGenerator[pb.PredictBatchResponse]:
        """Yield the outcome of each image, in the order in which the work finishes.

        Args:
            window: most images in flight, answers that were not taken included.

        Raises:
            Draining: this server stopped before all images were begun.
        """
        images = StreamWindow(self._answer, size=window, closing=self._has_been_given_up)
        async with aclosing(images.responses(self._indices())) as responses:
            async for response in responses:
                yield response
        if images.was_cut:
            raise Draining("this server stopped; send the images without an answer to another one")

    async def _indices(self) -> AsyncIterator[int]:
        for index in range(len(self._images)):
            yield index

    async def _answer(self, index: int) -> pb.PredictBatchResponse:
        item = self._images[index]
        request_id = item.request_id or f"{self._call.request_id}-{index}"
        image = ImageRecord(self._options.model)
        result = await outcome(self._labels(item, request_id), self._call, image)
        if isinstance(result, pb.PredictResponse):
            return pb.PredictBatchResponse(index=index, request_id=request_id, response=result)
        return pb.PredictBatchResponse(index=index, request_id=request_id, failure=result)

    async def _labels(self, item: pb.BatchImage, request_id: str) -> pb.PredictResponse:
        validation.check_request_id(item.request_id)
        if self._has_been_given_up.is_set():
            # The window has kept it until now, and nobody would give up what it begins.
            raise Draining("this server stopped before this image was begun")
        try:
            return await self._labelling.label(
                item.image,
                self._options,
                self._call,
                request_id=request_id,
                timeout_s=self._remaining_s(),
            )
        except Draining:
            self._has_been_given_up.set()
            raise
