"""Callers of every kind, each of which checks that an answer is its own."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from prediction.v1 import prediction_pb2, prediction_pb2_grpc
from tests.stack import Colour, colour_of, details_of_status, reason_of, request_for

REFUSED_PAUSE_S = 0.05
"""Before a caller that was refused comes again."""

STREAM_IMAGES = 40
BASE = 200
_numbers = itertools.count()


def next_colour() -> Colour:
    """Return a colour that nobody asked for yet; never one of the special ones."""
    number = next(_numbers)
    return 1 + number // BASE**2 % BASE, 1 + number // BASE % BASE, 1 + number % BASE


@dataclass(slots=True)
class Call:
    """What became of one image."""

    colour: Colour
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    answers: int = 0
    is_wrong: bool = False
    attempt: int = 0
    refusal: str = ""
    """Why there is no answer: our reason, or the gRPC code where there is none."""

    @property
    def is_answered(self) -> bool:
        """Whether the caller has the answer to its own image."""
        return self.answers > 0 and not self.is_wrong

    @property
    def took_s(self) -> float:
        """How long it took."""
        return (self.ended or time.monotonic()) - self.began

    def answer(self, attempt: int, *, is_own: bool) -> None:
        """Note an answer."""
        self.ended = time.monotonic()
        self.answers += 1
        self.attempt = attempt
        self.is_wrong |= not is_own

    def refuse(self, reason: str) -> None:
        """Note why there is none."""
        self.ended = time.monotonic()
        self.refusal = reason


class Crowd:
    """Callers of one front-end."""

    def __init__(
        self,
        stub: "prediction_pb2_grpc.PredictionServiceAsyncStub",
        *,
        honest: Collection[str] = (),
    ) -> None:
        """Call nobody yet.

        Args:
            stub: the front-end, over a channel without retries.
            honest: refusals that the fault permits; all others count as lost.
        """
        self._stub = stub
        self.honest = frozenset(honest)
        self.calls: list[Call] = []
        self._stopping = asyncio.Event()

    def request(self, call: Call, *, request_id: str = "") -> prediction_pb2.PredictRequest:
        """Return what the caller asks."""
        return request_for(call.colour, request_id=request_id)

    def is_own(self, call: Call, response: prediction_pb2.PredictResponse) -> bool:
        """Say whether an answer is the answer to the caller's image."""
        return colour_of(response) == call.colour

    def _note(self, call: Call, response: prediction_pb2.PredictResponse) -> None:
        call.answer(response.timing.attempt, is_own=self.is_own(call, response))

    async def predict(self, *, timeout_s: float = 40, colour: Colour | None = None) -> Call:
        """Make one call; a cancelled one is cancelled."""
        call = Call(colour or next_colour())
        self.calls.append(call)
        try:
            self._note(call, await self._stub.Predict(self.request(call), timeout=timeout_s))
        except grpc.aio.AioRpcError as error:
            call.refuse(reason_of(error) or error.code().name)
        except asyncio.CancelledError:
            call.refuse("CANCELLED")
            raise
        return call

    async def stream(self, *, count: int = STREAM_IMAGES, timeout_s: float = 40) -> list[Call]:
        """Send images over one stream."""
        calls: dict[str, Call] = {}

        async def requests() -> AsyncIterator[prediction_pb2.PredictStreamRequest]:
            for number in range(count):
                call = calls[str(number)] = Call(next_colour())
                self.calls.append(call)
                request = self.request(call, request_id=str(number))
                yield prediction_pb2.PredictStreamRequest(request=request)

        try:
            async for outcome in self._stub.PredictStream(requests(), timeout=timeout_s):
                call = calls[outcome.request_id]
                if outcome.HasField("response"):
                    self._note(call, outcome.response)
                else:
                    call.refuse(details_of_status(outcome.failure)["ErrorInfo"].reason)
        except grpc.aio.AioRpcError as error:
            for call in calls.values():
                if call.ended is None:
                    call.refuse(reason_of(error) or error.code().name)
        return list(calls.values())

    @asynccontextmanager
    async def busy(self, *, callers: int = 30, streams: int = 3) -> AsyncIterator[None]:
        """Keep calling while inside; on the way out wait until all calls have ended."""
        self._stopping.clear()
        loops = [
            *(asyncio.create_task(self._call_again(self._one)) for _ in range(callers)),
            *(asyncio.create_task(self._call_again(self.stream)) for _ in range(streams)),
        ]
        try:
            yield
        except BaseException:
            for loop in loops:
                loop.cancel()
            raise
        finally:
            self._stopping.set()
            await asyncio.gather(*loops, return_exceptions=True)

    async def _one(self) -> list[Call]:
        return [await self.predict()]

    async def _call_again(self, make_calls: Callable[[], Awaitable[list[Call]]]) -> None:
        while not self._stopping.is_set():
            if any(call.refusal for call in await make_calls()):
                await asyncio.sleep(REFUSED_PAUSE_S)

    def answered(self) -> list[Call]:
        """Return the calls that have their answer."""
        return [call for call in self.calls if call.is_answered]

    def lost(self) -> list[Call]:
        """Return the calls that have neither an answer nor a refusal that is honest."""
        return [
            call for call in self.calls if not call.is_answered and call.refusal not in self.honest
        ]

    def repeated(self) -> int:
        """Return how many answers came besides the first ones."""
        return sum(max(0, call.answers - 1) for call in self.calls)
