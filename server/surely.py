"""Repeating what may or may not have happened until that is known."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from dispatch.errors import BrokerUnavailable, ExpiredInQueue, OutcomeUnknown
from dispatch.link import Link

T = TypeVar("T")

PAUSE_S: Final = 0.1


async def surely(link: Link, ask: Callable[[], Awaitable[T]], *, timeout_s: float) -> T:
    """Return what `ask` returns, which must be harmless when repeated.

    Args:
        link: while it is down, nothing is asked.
        ask: what to do.
        timeout_s: time left until the caller's deadline, seconds.

    Raises:
        BrokerUnavailable: Redis is away, or has not said what came of it.
        ExpiredInQueue: the time was over before Redis could have answered.
    """
    if not link.is_up:
        raise BrokerUnavailable("the broker cannot be reached")
    ends_at = time.monotonic() + timeout_s
    is_unknown = False
    cause: BrokerUnavailable | OutcomeUnknown
    while True:
        remaining_s = max(0.0, ends_at - time.monotonic())
        try:
            async with asyncio.timeout(remaining_s):
                return await ask()
        except OutcomeUnknown as error:
            is_unknown, cause = True, error
        except BrokerUnavailable as error:
            if not is_unknown:
                raise
            cause = error
        except TimeoutError as error:
            if is_unknown:
                raise BrokerUnavailable("the broker has not answered in time; repeat it") from error
            # Redis would have had longer: it is the caller who is in a hurry.
            raise ExpiredInQueue("the deadline came before the answer of the broker") from error
        if time.monotonic() + PAUSE_S >= ends_at:
            raise BrokerUnavailable("the broker has not confirmed; repeat it") from cause
        await asyncio.sleep(PAUSE_S)
