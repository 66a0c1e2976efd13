"""The public API: each method translates, waits, and translates back."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.longrunning import operations_pb2

from despacho.job.v1 import job_pb2
from dispatch.errors import Draining, ExpiredInQueue, InvalidArgument
from prediction.v1 import prediction_pb2 as pb
from prediction.v1.prediction_pb2_grpc import PredictionServiceServicer
from server import validation
from server.batch import Batch
from server.call_record import CURRENT, CallRecord, ImageRecord
from server.deadline import Deadline, with_margin
from server.gate import Gate
from server.ids import new_id
from server.labelling import Labelling, Options, outcome
from server.operation_messages import to_operation
from server.ports import Fleet, Operations, Relay
from server.receiving import Receiving
from server.settings import ServerSettings
from server.stream_window import StreamWindow
from server.translate import to_model
from server.upload import Upload

Context = grpc.aio.ServicerContext[Any, Any]


class PredictionService(PredictionServiceServicer):
    """Labels images with whatever models the fleet has.

    Args:
        settings: deadlines, sizes.
        relay: where images go that are waited for.
        operations: where images go that are fetched later.
        fleet: which models there are.
        gate: closed when the server is about to stop, so that streams end.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        relay: Relay,
        operations: Operations,
        fleet: Fleet,
        gate: Gate,
    ) -> None:
        self._settings = settings
        self._labelling = Labelling(
            max_image_bytes=settings.max_image_bytes, relay=relay, fleet=fleet
        )
        self._receiving = Receiving(max_bytes=settings.max_receiving_bytes)
        self._operations = operations
        self._fleet = fleet
        self._gate = gate

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        """Label one image."""
        call = CURRENT.get()
        deadline = Deadline(self._settings, context)
        validation.check_request_id(request.request_id)
        call.request_id = request.request_id or call.request_id
        options = self._labelling.options(request, call)
        return await self._labelling.label(
            request.image,
            options,
            call,
            request_id=call.request_id,
            timeout_s=deadline.remaining_s(),
        )

    async def PredictBatch(
        self, request: pb.PredictBatchRequest, context: Context
    ) -> AsyncIterator[pb.PredictBatchResponse]:
        """Label the images of one message."""
        call = CURRENT.get()
        remaining_s = _counted_down(Deadline(self._settings, context))
        validation.check_batch_count(len(request.images))
        validation.check_request_id(request.request_id)
        call.request_id = request.request_id or call.request_id
        options = self._labelling.options(request, call)
        with self._receiving.share() as share:
            # The message stays until its last image is answered.
            share.add(request.ByteSize())
            batch = Batch(request, self._labelling, options, call, remaining_s)
            async with aclosing(batch.responses(window=self._settings.stream_window)) as responses:
                async for response in responses:
                    yield response

    async def PredictUpload(
        self, request_iterator: AsyncIterator[pb.PredictUploadRequest], context: Context
    ) -> pb.PredictUploadResponse:
        """Label one image that comes in chunks."""
        call = CURRENT.get()
        remaining_s = _counted_down(Deadline(self._settings, context))
        with self._receiving.share() as share:
            upload = Upload(
                aiter(request_iterator), share, max_bytes=self._settings.max_image_bytes
            )
            try:
                async with asyncio.timeout(with_margin(remaining_s())):
                    options, image = await self._gate.unless_closed(self._receive(upload, call))
            except TimeoutError as error:
                raise ExpiredInQueue("the image was not complete before the deadline") from error
        response = await self._labelling.label(
            image, options, call, request_id=call.request_id, timeout_s=remaining_s()
        )
        return pb.PredictUploadResponse(response=response)

    async def PredictStream(
        self, request_iterator: AsyncIterator[pb.PredictStreamRequest], context: Context
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        """Label many images."""
        call = CURRENT.get()
        deadline = Deadline(self._settings, context)

        async def answer(item: pb.PredictStreamRequest) -> pb.PredictStreamResponse:
            return await self._answer(item, call, timeout_s=deadline.remaining_s())

        window = StreamWindow(answer, size=self._settings.stream_window, closing=self._gate.closed)
        async with aclosing(window.responses(aiter(request_iterator))) as responses:
            async for response in responses:
                yield response
        if window.was_cut:
            raise Draining("this server is shutting down; send the rest to another one")

    async def SubmitPrediction(
        self, request: pb.SubmitPredictionRequest, context: Context
    ) -> operations_pb2.Operation:
        """Accept one image, to be labelled later."""
        call = CURRENT.get()
        deadline = Deadline(self._settings, context)
        request_id = validation.to_submission_id(request.request_id)
        is_synced = validation.to_is_synced(request.durability)
        top_k = validation.to_top_k(request.top_k)
        image = request.image
        validation.check_image(image, max_bytes=self._settings.max_image_bytes)
        job = job_pb2.Job(
            model=self._fleet.resolve(request.model),
            top_k=top_k,
            include_scores=request.include_scores,
            traceparent=call.traceparent,
        )
        call.model = job.model
        with self._receiving.share() as share:
            # Until Redis has it, which may be seconds: of `synced` ones when the disk has it.
            share.add(len(image))
            operation = await self._operations.submit(
                job,
                image,
                caller=call.caller,
                request_id=request_id,
                is_synced=is_synced,
                timeout_s=with_margin(deadline.remaining_s()),
            )
        call.request_id = request_id or call.request_id
        call.operation = operation.job.id
        call.operation_request_id = operation.job.request_id
        call.images += 1
        return to_operation(operation)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """List the models."""
        del request, context
        views = self._fleet.listed()
        return pb.ListModelsResponse(models=[to_model(view, with_labels=False) for view in views])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Describe one model."""
        del context
        CURRENT.get().model = name = self._fleet.resolve(request.name)
        view = next(each for each in self._fleet.listed() if each.card.name == name)
        return pb.GetModelResponse(model=to_model(view, with_labels=True))

    async def _answer(
        self, item: pb.PredictStreamRequest, call: CallRecord, *, timeout_s: float
    ) -> pb.PredictStreamResponse:
        """Answer one image of a stream; its failure is its own."""
        request_id = item.request.request_id or new_id()
        image = ImageRecord()

        async def labels() -> pb.PredictResponse:
            if not item.HasField("request"):
                raise InvalidArgument("request", "the message has no request")
            validation.check_request_id(request_id)
            options = self._labelling.options(item.request, call)
            image.model = options.model
            return await self._labelling.label(
                item.request.image, options, call, request_id=request_id, timeout_s=timeout_s
            )

        result = await outcome(labels(), call, image)
        if isinstance(result, pb.PredictResponse):
            return pb.PredictStreamResponse(request_id=request_id, response=result)
        return pb.PredictStreamResponse(request_id=request_id, failure=result)

    async def _receive(self, upload: Upload, call: CallRecord) -> tuple[Options, bytes]:
        """Return what is wanted of an image, and the image; refuse it as soon as possible."""
        wanted = await upload.options()
        validation.check_request_id(wanted.request_id)
        call.request_id = wanted.request_id or call.request_id
        return self._labelling.options(wanted, call), await upload.image()


def _counted_down(deadline: Deadline) -> Callable[[], float]:
    """Return what says how long the caller will still wait, counted from now on.

    It says 0 as soon as what is begun would hardly be answered before the margin.
    When the first images of a batch run out of time, the next ones would otherwise
    be queued for what is left of it, and the next ones after them.
    """
    total_s = deadline.remaining_s()
    ends_s = time.monotonic() + total_s
    too_late_s = 2 * (total_s - with_margin(total_s))

    def remaining_s() -> float:
        left_s = ends_s - time.monotonic()
        return left_s if left_s > too_late_s else 0.0

    return remaining_s
