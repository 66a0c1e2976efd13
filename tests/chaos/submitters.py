"""Callers who submit here and fetch there."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

import grpc
from google.longrunning import operations_pb2

from prediction.v1 import prediction_pb2
from tests.chaos.crowd import Call, Crowd, next_colour
from tests.stack import image_of, reason_of
from tests.worker_process import LABELS, MODEL

PATIENCE_S: Final = 60.0
PAUSE_S: Final = 0.1


class Submitters(Crowd):
    """Each repeats its request, under the same id, until it is accepted."""

    names: dict[str, Call]
    """What was accepted, by the name of the operation."""

    def __init__(self, stub: Any, **options: Any) -> None:
        super().__init__(stub, **options)
        self.names = {}

    async def submit(self) -> Call:
        """Submit one image."""
        call = Call(next_colour())
        self.calls.append(call)
        request = prediction_pb2.SubmitPredictionRequest(
            model=MODEL,
            image=image_of(call.colour),
            top_k=len(LABELS),
            include_scores=True,
            request_id=str(uuid4()),
        )
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    operation = await self._stub.SubmitPrediction(request, timeout=5)
                except grpc.aio.AioRpcError as error:
                    if not is_worth_repeating(error):
                        raise
                    await asyncio.sleep(PAUSE_S)
                else:
                    self.names[operation.name] = call
                    return call

    async def submit_all(self, count: int, *, at_once: int = 50) -> None:
        """Submit many images, some at once."""
        left = iter(range(count))

        async def submit_some() -> None:
            for _ in left:
                await self.submit()

        await asyncio.gather(*(submit_some() for _ in range(at_once)))

    async def fetch_all(self, operations: Any, *, at_once: int = 200) -> None:
        """Wait for all that was accepted, through any front-end."""
        left = iter(list(self.names.items()))

        async def fetch_some() -> None:
            for name, call in left:
                await self._fetch(operations, name, call)

        await asyncio.gather(*(fetch_some() for _ in range(at_once)))

    async def _fetch(self, operations: Any, name: str, call: Call) -> None:
        request = operations_pb2.WaitOperationRequest(name=name)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    operation = await operations.WaitOperation(request, timeout=20)
                except grpc.aio.AioRpcError as error:
                    if not is_worth_repeating(error):
                        call.refuse(reason_of(error) or error.code().name)
                        return
                    await asyncio.sleep(PAUSE_S)
                    continue
                if operation.done:
                    break
        response = prediction_pb2.PredictResponse()
        if operation.response.Unpack(response):
            self._note(call, response)
        else:
            call.refuse(operation.error.message)


def is_worth_repeating(error: grpc.aio.AioRpcError) -> bool:
    """Say whether a client would come again."""
    return error.code() in {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }


def attempts(calls: Sequence[Call]) -> int:
    """Return how many were answered by a second or later delivery."""
    return sum(call.attempt > 1 for call in calls)
