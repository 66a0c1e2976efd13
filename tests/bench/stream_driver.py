"""Drives one bidirectional stream, from a process of its own.

    python -m tests.bench.stream_driver ADDRESS COUNT WINDOW BYTES

Keeps WINDOW images in flight, compares each answer with its image, and prints one line of
JSON: seconds, and the latency of each, ascending, in milliseconds. Messages are put together
from bytes, since most of what a client in Python costs would be making them.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import uvloop

from prediction.v1 import prediction_pb2 as pb
from tests.bench.payloads import answer_to, payload, request

VARIETY: Final = 16
"""Different images."""

METHOD: Final = "/prediction.v1.PredictionService/PredictStream"
OPTIONS: Final = [("grpc.max_send_message_length", 32 * 1024 * 1024)]
ID_DIGITS: Final = 8


class Messages:
    """Requests that differ in their id, and in one of a few images."""

    def __init__(self, size: int) -> None:
        images = [payload(size, seed) for seed in range(VARIETY)]
        self._classes = [answer_to(image) for image in images]
        placeholder = "0" * ID_DIGITS
        # The id comes last in the encoded message: its field has the highest number.
        self._heads = [
            pb.PredictStreamRequest(
                request=request(image, request_id=placeholder)
            ).SerializeToString()[:-ID_DIGITS]
            for image in images
        ]

    def encoded(self, number: int) -> bytes:
        """Return a request whose id is its number."""
        return self._heads[number % VARIETY] + f"{number:0{ID_DIGITS}}".encode()

    def check(self, response: pb.PredictStreamResponse) -> int:
        """Return the number that an answer belongs to; fail if it is not the right one."""
        number = int(response.request_id)
        classes = [each.class_id for each in response.response.predictions]
        if classes != [self._classes[number % VARIETY]]:
            raise SystemExit(f"wrong answer to {number}: {response}")
        return number


async def drive(address: str, count: int, window: int, size: int) -> dict[str, object]:
    """Send all, and return what they took."""
    messages = Messages(size)
    room = asyncio.Semaphore(window)
    sent: dict[int, float] = {}
    latencies: list[float] = []

    async def requests() -> AsyncIterator[bytes]:
        for number in range(count):
            await room.acquire()
            sent[number] = time.perf_counter()
            yield messages.encoded(number)

    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        await channel.channel_ready()
        method: Any = channel.stream_stream(
            METHOD,
            request_serializer=None,
            response_deserializer=pb.PredictStreamResponse.FromString,
        )
        began = time.perf_counter()
        async for response in method(requests()):
            number = messages.check(response)
            latencies.append((time.perf_counter() - sent.pop(number)) * 1000)
            room.release()
        seconds = time.perf_counter() - began
    if sent or len(latencies) != count:
        raise SystemExit(f"{len(latencies)} answers to {count} requests")
    return {"seconds": seconds, "latencies_ms": sorted(latencies)}


if __name__ == "__main__":
    address, *numbers = sys.argv[1:]
    json.dump(uvloop.run(drive(address, *map(int, numbers))), sys.stdout)
