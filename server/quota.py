"""How much one caller may ask for: a rate, and calls at a time."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from dispatch.errors import RateLimited

T = TypeVar("T")

BURST_S: Final = 1.0
"""A caller that was quiet for this long has its rate saved up."""

BUSY_RETRY_S: Final = 0.5
"""When a caller with too many calls at a time should come back, seconds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller may do; 0: as much as it likes."""

    requests_per_s: float = 0
    max_in_flight: int = 0


class Quota:
    """What a caller has used of its limits.

    A token bucket that may go into debt: what is only known afterwards, such as the
    images of a batch, is paid for by the next calls.

    Args:
        name: whose it is.
        limits: may be replaced while calls are in flight.
        now: monotonic clock, seconds.
    """

    def __init__(
        self, name: str, limits: Limits, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self._name = name
        self._now = now
        self._in_flight = 0
        self._tokens = self._burst
        self._filled_s = now()

    @property
    def _burst(self) -> float:
        # At least one, or a rate below one in a second would never let anything in.
        return max(1.0, self.limits.requests_per_s * BURST_S)

    def check_room(self) -> None:
        """Check that one more call may run.

        Raises:
            RateLimited: too many do.
        """
        most = self.limits.max_in_flight
        if most and self._in_flight >= most:
            raise RateLimited(
                f"{most} calls are in progress with this key already",
                subject=f"key:{self._name}/max_in_flight",
                retry_after_s=BUSY_RETRY_S,
            )

    def take(self) -> None:
        """Use up one request.

        Raises:
            RateLimited: there is none left.
        """
        wait_s = self._time_to_s(1)
        if wait_s > 0:
            raise RateLimited(
                f"this key may send {self.limits.requests_per_s:g} requests per second",
                subject=f"key:{self._name}/requests_per_s",
                retry_after_s=wait_s,
            )
        self._tokens -= 1

    def charge(self, requests: int) -> None:
        """Use up requests that have been served already."""
        self._fill()
        self._tokens -= requests

    async def take_patiently(self) -> None:
        """Use up one request; return when there is one."""
        # Taken at once, and then waited for: so several streams of one caller take turns.
        self.charge(1)
        wait_s = self._time_to_s(0)
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def enter(self) -> None:
        """Count one more call in progress."""
        self._in_flight += 1

    def leave(self) -> None:
        """Count one less."""
        self._in_flight -= 1

    def _fill(self) -> None:
        now = self._now()
        saved = self._tokens + (now - self._filled_s) * self.limits.requests_per_s
        self._tokens = min(self._burst, saved) if self.limits.requests_per_s else self._burst
        self._filled_s = now

    def _time_to_s(self, tokens: float) -> float:
        """Return how long it takes until there are that many."""
        self._fill()
        missing = tokens - self._tokens
        return missing / self.limits.requests_per_s if missing > 0 else 0.0


class Visit:
    """One call of a caller: in progress from here to `end`, its first request paid for.

    Args:
        quota: of the caller.
        images: returns how many the call has had so far.
    """

    def __init__(self, quota: Quota, images: Callable[[], int]) -> None:
        self._quota = quota
        self._images = images
        self._paid = 1
        quota.enter()

    async def paced(self, messages: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """Yield messages, each a request, no faster than the rate, and than that of images."""
        is_first = True
        async for message in messages:
            if not is_first:
                self._pay_for_images()
                await self._quota.take_patiently()
                self._paid += 1
            is_first = False
            yield message

    def end(self) -> None:
        """Leave, and pay for images that were more than one to a message."""
        self._quota.leave()
        self._pay_for_images()

    def _pay_for_images(self) -> None:
        owed = max(0, self._images() - self._paid)
        self._quota.charge(owed)
        self._paid += owed
