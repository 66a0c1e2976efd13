"""The Open Inference Protocol: each method translates, waits, and translates back."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import grpc

from despacho.job.v1 import job_pb2
from dispatch.errors import DespachoError, Draining, ExpiredInQueue, ModelNotFound, Unavailable
from inference import grpc_predict_v2_pb2 as pb
from inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceServicer
from server import cancellation
from server.call_record import CURRENT, CallRecord, ImageRecord
from server.deadline import Deadline
from server.error_mapping import status_and_log
from server.gate import Gate
from server.ids import new_id
from server.inference_models import check_version, to_config, to_index, to_metadata, versions_of
from server.inference_order import InOrder
from server.inference_request import Wanted, name_image, to_wanted
from server.inference_response import to_response
from server.inference_statistics import Statistics
from server.ports import Fleet, ModelView, Relay
from server.settings import ServerSettings
from server.status import reason_of
from server.stream_window import StreamWindow
from server.together import all_of
from server.validation import is_request_id

Context = grpc.aio.ServicerContext[Any, Any]

SERVER_NAME: Final = "despacho"
"""What `ServerMetadata` calls us."""

SERVER_VERSION: Final = "0.1.0"
"""That of the client, which an image of the server does not have; a test compares."""

EXTENSIONS: Final = ("classification", "model_configuration", "schedule_policy", "statistics")
"""Triton's names of what works here beyond the protocol."""

GRPC_ERROR_KEY: Final = "triton_grpc_error"
"""Metadata: whether an error ends a stream with a status."""


class InferenceService(GRPCInferenceServiceServicer):
    """Serves clients that were written for KServe or Triton.

    Args:
        settings: deadlines, sizes.
        relay: where images go.
        fleet: which models there are.
        gate: closed when the server is about to stop, so that streams end.
    """

    def __init__(self, settings: ServerSettings, *, relay: Relay, fleet: Fleet, gate: Gate) -> None:
        self._settings = settings
        self._relay = relay
        self._fleet = fleet
        self._gate = gate
        self._statistics = Statistics()

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        """Tell that the process answers."""
        del request, context
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        """Tell whether the process has what it needs."""
        del request, context
        return pb.ServerReadyResponse(ready=self._fleet.is_current)

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        """Tell whether a worker of a model is ready."""
        del context
        try:
            view = self._model(request.name, request.version)
        except (ModelNotFound, Unavailable):
            return pb.ModelReadyResponse(ready=False)
        is_ready = self._fleet.is_current and view.ready_workers > 0
        return pb.ModelReadyResponse(ready=is_ready)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """Tell what this server is."""
        del request, context
        return pb.ServerMetadataResponse(
            name=SERVER_NAME, version=SERVER_VERSION, extensions=EXTENSIONS
        )

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Tell which tensors a model takes and gives."""
        del context
        return to_metadata(self._model(request.name, request.version))

    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        """Tell how a model is served."""
        del context
        view = self._model(request.name, request.version)
        return pb.ModelConfigResponse(config=to_config(view))

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        """Tell what was done."""
        del context
        views = [self._model(request.name)] if request.name else self._fleet.listed()
        found = [
            each
            for view in views
            for each in self._statistics.of(view.card.name, versions_of(view))
            if request.version in {"", each.version}
        ]
        if request.name and not found:
            check_version(views[0], request.version)
        return pb.ModelStatisticsResponse(model_stats=found)

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """List the models."""
        del context
        views = [] if request.repository_name else self._fleet.listed()
        return to_index(views, ready_only=request.ready)

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        """Label the images of one request."""
        call = CURRENT.get()
        deadline = Deadline(self._settings, context)
        # One that may not be used is refused below.
        call.request_id = request.id if is_request_id(request.id) else call.request_id
        return await self._infer(
            request,
            call,
            ImageRecord(),
            request_id=call.request_id,
            timeout_s=deadline.remaining_s(),
        )

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Label the images of many requests, and answer in their order."""
        call = CURRENT.get()
        deadline = Deadline(self._settings, context)
        ends_on_failure = _asks_for_status(context)
        order = InOrder()
        failed: list[ImageRecord] = []

        async def answer(request: pb.ModelInferRequest) -> pb.ModelStreamInferResponse:
            image = ImageRecord()
            try:
                return await order.result(
                    self._answer(
                        request,
                        call,
                        image,
                        timeout_s=deadline.remaining_s(),
                        ends_on_failure=ends_on_failure,
                    )
                )
            except Exception:
                failed.append(image)
                raise

        window = StreamWindow(answer, size=self._settings.stream_window, closing=self._gate.closed)
        try:
            async with aclosing(window.responses(aiter(request_iterator))) as responses:
                async for response in responses:
                    yield response
        finally:
            if failed:
                # The call fails as that request did, and not as the last one that was read. Until
                # here more are.
                call.model = failed[0].model
        if window.was_cut:
            raise Draining("this server is shutting down; send the rest to another one")

    async def _answer(
        self,
        request: pb.ModelInferRequest,
        call: CallRecord,
        image: ImageRecord,
        *,
        timeout_s: float,
        ends_on_failure: bool,
    ) -> pb.ModelStreamInferResponse:
        """Answer one request of a stream."""
        try:
            response = await self._infer(
                request, call, image, request_id=request.id or new_id(), timeout_s=timeout_s
            )
        except asyncio.CancelledError as error:
            if cancellation.was_asked_for():
                raise
            failure: Exception = RuntimeError("what the answer depends on was cancelled")
            failure.__cause__ = error
        except Exception as error:  # noqa: BLE001 - one request must not end the stream
            failure = error
        else:
            response.parameters["triton_final_response"].bool_param = True
            return pb.ModelStreamInferResponse(infer_response=response)
        try:
            if ends_on_failure:
                raise failure
            status = status_and_log(failure, call, model=image.model)
        finally:
            # It knows this frame. If this frame knew it, too, the request would stay until the
            # next collection of garbage.
            del failure
        return pb.ModelStreamInferResponse(
            error_message=f"{reason_of(status)}: {status.message}",
            infer_response=pb.ModelInferResponse(id=request.id),
        )

    async def _infer(
        self,
        request: pb.ModelInferRequest,
        call: CallRecord,
        image: ImageRecord,
        *,
        request_id: str,
        timeout_s: float,
    ) -> pb.ModelInferResponse:
        arrived_s = time.monotonic()
        # Until they are answered, however the wait ends.
        call.failed_images += 1
        wanted = to_wanted(request, max_image_bytes=self._settings.max_image_bytes)
        call.failed_images += len(wanted.images) - 1
        card = self._model(request.model_name, request.model_version).card
        call.model = image.model = card.name
        job = job_pb2.Job(
            request_id=request_id,
            model=card.name,
            top_k=wanted.top_k,
            include_scores=wanted.includes_scores,
            traceparent=call.traceparent,
        )
        if wanted.timeout_s is not None:
            timeout_s = min(timeout_s, wanted.timeout_s)
        if timeout_s <= 0:
            # Nobody would hear of it, so let it not even be queued.
            raise ExpiredInQueue("the deadline passed before the images could be queued")
        with self._statistics.failures(card.name, card.version):
            replies = await self._predict(job, wanted, timeout_s=timeout_s)
            response = to_response(replies, wanted, request=request, model=card.name)
        self._statistics.answered(card.name, replies, total_s=time.monotonic() - arrived_s)
        call.failed_images -= len(replies)
        call.images += len(replies)
        call.reply = replies[0]
        return response

    async def _predict(
        self, job: job_pb2.Job, wanted: Wanted, *, timeout_s: float
    ) -> list[job_pb2.Reply]:
        """Return the reply to each image; if one fails, cancel the others."""
        count = len(wanted.images)

        async def predict(index: int) -> job_pb2.Reply:
            own = job_pb2.Job()
            own.CopyFrom(job)  # the relay gives each job an id
            try:
                return await self._relay.predict(
                    own, wanted.images[index], priority=wanted.priority, timeout_s=timeout_s
                )
            except DespachoError as error:
                name_image(error, index, count)
                raise

        if count == 1:
            return [await predict(0)]
        return await all_of(predict(index) for index in range(count))

    def _model(self, name: str, version: str = "") -> ModelView:
        """Return the model that a request names.

        Raises:
            ModelNotFound: there is no such model, or no such version.
            InvalidArgument: the name is empty and there is no default.
            BrokerUnavailable: that cannot be known now.
        """
        view = self._fleet.get(self._fleet.resolve(name))
        check_version(view, version)
        return view


def _asks_for_status(context: Context) -> bool:
    """Say whether the caller wants errors of a stream as the status of the call."""
    metadata = dict(context.invocation_metadata() or ())
    return str(metadata.get(GRPC_ERROR_KEY, "")).lower() == "true"
