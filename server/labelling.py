"""One image of a call, whichever way it came: check, send, wait, translate back."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeAlias

from google.rpc import status_pb2

from despacho.job.v1 import job_pb2
from dispatch.errors import ExpiredInQueue
from dispatch.jobs import Priority
from prediction.v1 import prediction_pb2 as pb
from server import cancellation, validation
from server.call_record import CallRecord, ImageRecord
from server.error_mapping import status_and_log
from server.ports import Fleet, Relay
from server.translate import to_response

OptionsMessage: TypeAlias = pb.PredictRequest | pb.PredictBatchRequest | pb.UploadOptions
"""The messages that say what is wanted of an image."""


# Made for each call, so not frozen: that would take three times as long.
@dataclass(slots=True)
class Options:
    """What is wanted of an image, checked; does not change."""

    model: str
    top_k: int
    priority: Priority
    include_scores: bool


class Labelling:
    """Labels the images of calls.

    Args:
        max_image_bytes: size of the largest image.
        relay: where images go.
        fleet: which models there are.
    """

    def __init__(self, *, max_image_bytes: int, relay: Relay, fleet: Fleet) -> None:
        self._max_image_bytes = max_image_bytes
        self._relay = relay
        self._fleet = fleet

    def options(self, message: OptionsMessage, call: CallRecord) -> Options:
        """Return what a caller wants of one image, or of all images of a batch.

        Raises:
            InvalidArgument, ModelNotFound, BrokerUnavailable: it cannot be had.
        """
        priority = validation.to_priority(message.priority)
        top_k = validation.to_top_k(message.top_k)
        call.model = self._fleet.resolve(message.model)
        return Options(call.model, top_k, priority, message.include_scores)

    async def label(
        self, image: bytes, options: Options, call: CallRecord, *, request_id: str, timeout_s: float
    ) -> pb.PredictResponse:
        """Return the labels of one image.

        Raises:
            DespachoError: there are none; the class says why.
        """
        arrived_s = time.monotonic()
        validation.check_image(image, max_bytes=self._max_image_bytes)
        if timeout_s <= 0:
            # Nobody would hear of it, so let it not even be queued.
            raise ExpiredInQueue("the deadline passed before the image could be queued")
        job = job_pb2.Job(
            request_id=request_id,
            model=options.model,
            top_k=options.top_k,
            include_scores=options.include_scores,
            traceparent=call.traceparent,
        )
        reply = await self._relay.predict(
            job, image, priority=options.priority, timeout_s=timeout_s
        )
        call.images += 1
        call.reply = reply
        return to_response(reply, job, total_s=time.monotonic() - arrived_s)


async def outcome(
    labels: Awaitable[pb.PredictResponse], call: CallRecord, image: ImageRecord
) -> pb.PredictResponse | status_pb2.Status:
    """Return the labels of one image among many, or its own failure.

    Raises:
        CancelledError: the call was cancelled; nothing else ends it.
    """
    try:
        return await labels
    except asyncio.CancelledError as error:
        if cancellation.was_asked_for():
            raise
        failure: BaseException = error
    except Exception as error:  # noqa: BLE001 - one image must not end the call
        failure = error
    call.failed_images += 1
    return status_and_log(failure, call, model=image.model)
