"""The public API: each method translates, waits, and translates back."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from google.longrunning import operations_pb2

from despacho.job.v1 import job_pb2
from dispatch.errors import Draining, InvalidArgument
from prediction.v1 import prediction_pb2 as pb
from prediction.v1.prediction_pb2_grpc import PredictionServiceServicer
from server import cancellation, validation
from server.call_record import CURRENT, CallRecord, new_request_id
from server.deadline import Deadline, with_margin
from server.error_mapping import status_and_log
from server.gate import Gate
from server.operation_messages import to_operation
from server.operations import ANONYMOUS
from server.ports import Fleet, Operations, Relay
from server.settings import ServerSettings
from server.stream_window import StreamWindow
from server.translate import to_model, to_response

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
        self._relay = relay
        self._operations = operations
        self._fleet = fleet
        self._gate = gate

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        """Label one image."""
        call = CURRENT.get()
        deadline = Deadline(self._settings, context)
        validation.check_request_id(request.request_id)
        call.request_id = request.request_id or call.request_id
        return await self._predict(
            request, call, request_id=call.request_id, timeout_s=deadline.remaining_s()
        )

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
        validation.check_image(request.image, max_bytes=self._settings.max_image_bytes)
        job = job_pb2.Job(
            model=self._fleet.resolve(request.model),
            top_k=top_k,
            include_scores=request.include_scores,
            traceparent=call.traceparent,
        )
        call.model = job.model
        operation = await self._operations.submit(
            job,
            request.image,
            caller=ANONYMOUS,
            request_id=request_id,
            is_synced=is_synced,
            timeout_s=with_margin(deadline.remaining_s()),
        )
        call.request_id = operation.job.request_id
        call.images += 1
        return to_operation(operation)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """List the models."""
        del request, context
        views = self._fleet.models()
        return pb.ListModelsResponse(models=[to_model(view, with_labels=False) for view in views])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Describe one model."""
        del context
        CURRENT.get().model = name = self._fleet.resolve(request.name)
        return pb.GetModelResponse(model=to_model(self._fleet.get(name), with_labels=True))

    async def _answer(
        self, item: pb.PredictStreamRequest, call: CallRecord, *, timeout_s: float
    ) -> pb.PredictStreamResponse:
        """Answer one image of a stream; its failure is its own."""
        request_id = item.request.request_id or new_request_id()
        try:
            if not item.HasField("request"):
                raise InvalidArgument("request", "the message has no request")
            validation.check_request_id(request_id)
            response = await self._predict(
                item.request, call, request_id=request_id, timeout_s=timeout_s
            )
        except asyncio.CancelledError as error:
            if cancellation.was_asked_for():
                raise
            failure: BaseException = error
        except Exception as error:  # noqa: BLE001 - one image must not end the stream
            failure = error
        else:
            return pb.PredictStreamResponse(request_id=request_id, response=response)
        call.failed_images += 1
        status = status_and_log(failure, call)
        return pb.PredictStreamResponse(request_id=request_id, failure=status)

    async def _predict(
        self, request: pb.PredictRequest, call: CallRecord, *, request_id: str, timeout_s: float
    ) -> pb.PredictResponse:
        arrived_s = time.monotonic()
        priority = validation.to_priority(request.priority)
        top_k = validation.to_top_k(request.top_k)
        validation.check_image(request.image, max_bytes=self._settings.max_image_bytes)
        job = job_pb2.Job(
            request_id=request_id,
            model=self._fleet.resolve(request.model),
            top_k=top_k,
            include_scores=request.include_scores,
            traceparent=call.traceparent,
        )
        call.model = job.model
        reply = await self._relay.predict(
            job, request.image, priority=priority, timeout_s=timeout_s
        )
        call.images += 1
        return to_response(reply, job, total_s=time.monotonic() - arrived_s)
