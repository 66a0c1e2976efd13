"""The images of one message, while its server gives up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest

from dispatch.errors import Draining
from dispatch.jobs import Priority
from prediction.v1 import prediction_pb2 as pb
from server import stream_window
from server.batch import Batch
from server.call_record import CallRecord
from server.labelling import Labelling, Options
from tests.front_end import LIMIT_S

QUICK = 6


class Relayed:
    """Answers the first `QUICK` images at once, and gives the others up when it is told to."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.given_up = asyncio.Event()

    async def label(self, image: bytes, *_: Any, **__: Any) -> pb.PredictResponse:
        self.begun.append(image)
        if int(image) >= QUICK:
            await self.given_up.wait()
            raise Draining("stopped")
        return pb.PredictResponse()


async def collect(
    responses: AsyncIterator[pb.PredictBatchResponse], received: list[pb.PredictBatchResponse]
) -> None:
    """Take all there are, up to an error."""
    async for response in responses:
        received.append(response)  # noqa: PERF401 - what came before an error counts


async def settled() -> None:
    """Let all happen that can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_no_image_is_begun_once_the_server_has_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_window, "HELD_S", 600)
    window = QUICK + 2
    images = [b"%d" % number for number in range(window + 1)]
    relayed = Relayed()
    batch = Batch(
        pb.PredictBatchRequest(images=[pb.BatchImage(image=image) for image in images]),
        cast("Labelling", relayed),
        Options("model", 1, Priority.NORMAL, include_scores=False),
        CallRecord("/prediction.v1.PredictionService/PredictBatch", "id"),
        lambda: LIMIT_S,
    )
    async with asyncio.timeout(LIMIT_S), aclosing(batch.responses(window=window)) as responses:
        # With the second one taken, the last image is read, and waits as four answers do.
        received = [await anext(responses), await anext(responses)]
        await settled()
        assert relayed.begun == images[:window]
        relayed.given_up.set()
        await settled()
        with pytest.raises(Draining):
            await collect(responses, received)
    assert relayed.begun == images[:window]
    failed = [response.index for response in received if response.HasField("failure")]
    assert sorted(failed) == list(range(QUICK, window + 1))
