"""What operators watch: sampled once a second, and only while somebody does."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

import structlog

from despacho.job.v1.job_pb2 import FrontEndCard
from dispatch.errors import BrokerUnavailable, OutcomeUnknown
from dispatch.stats_store import ModelStats
from server.redis_clock import RedisClock
from server.samples import Sample
from server.tally import TALLY
from telemetry.metrics_catalogue import REDIS_BROKEN, REDIS_ROUND_TRIP

log = structlog.get_logger(__name__)

PERIOD_S: Final = 1.0
LATE_S: Final = PERIOD_S
"""After this a sample that was due is late, seconds."""

WINDOW: Final = 10
"""Periods over which rates are counted."""

WINDOW_S: Final = (WINDOW + 0.5) * PERIOD_S
"""The same in seconds, and a little more, as a look takes a moment."""

LEAST: Final = 2
"""Samples that it takes to tell a rate."""

REMEMBER_S: Final = 30.0
"""How long sampling goes on after the last one has stopped watching: who looks away for a
moment finds the rates as they were."""


class Store(Protocol):
    """What this needs of `dispatch/stats_store.py`."""

    async def announce(self, card: FrontEndCard) -> int:
        """Say what this front-end has done; return the time of Redis, microseconds."""
        ...

    async def leave(self, server_id: str) -> None:
        """Take a front-end off the list."""
        ...

    async def front_ends(self) -> dict[str, FrontEndCard]:
        """Return the live front-ends by name."""
        ...

    async def model(self, model: str) -> ModelStats | None:
        """Return what a model's queues and workers are doing."""
        ...


class Stats:
    """Tells what this front-end does, and samples what all do."""

    def __init__(
        self,
        store: Store,
        models: Callable[[], Iterable[str]],
        server_id: str,
        *,
        clock: RedisClock | None = None,
    ) -> None:
        """Do nothing yet; `run` does.

        Args:
            store: where to tell and to look.
            models: returns the names of those to look at.
            server_id: name of this front-end.
            clock: told the time of Redis; None: nobody wants to know.
        """
        self._store = store
        self._models = models
        self._clock = clock or RedisClock()
        self._card = FrontEndCard(server=server_id)
        self._samples: deque[Sample] = deque()
        self._watchers = 0
        self._wanted_until = 0.0
        self._wanted = asyncio.Event()
        self._sampled = asyncio.Event()
        self._next = asyncio.Event()
        """Set with the next sample, and then replaced."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample while inside."""
        self._watchers += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._watchers -= 1
            self._wanted_until = time.monotonic() + REMEMBER_S

    async def samples(self) -> tuple[Sample, ...]:
        """Return those of the last `WINDOW` periods, oldest first; at least one.

        There are gaps where Redis was away. After a long one they are the last two, for once.

        Raises:
            BrokerUnavailable: there is none, as Redis cannot be reached.
        """
        while not self._samples:
            try:
                async with asyncio.timeout(PERIOD_S):
                    await self._sampled.wait()
            except TimeoutError:
                raise BrokerUnavailable("the broker cannot be reached") from None
        return tuple(self._samples)

    async def news(self) -> None:
        """Wait for the next sample; if Redis cannot be reached, only until it is late."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PERIOD_S + LATE_S):
                await self._next.wait()

    def latest(self) -> Sample | None:
        """Return the last sample, of however long ago; None: there is none. Safe in any thread."""
        try:
            return self._samples[-1]
        except IndexError:
            return None

    async def run(self) -> None:
        """Announce, and sample when it is wanted, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._announce())
                tasks.create_task(self._sample())
        finally:
            # Best of all at once; if Redis is away, the card ends by itself.
            await self._leave()

    async def _announce(self) -> None:
        while True:
            TALLY.write_to(self._card, self._models())
            sent_s = time.monotonic()
            try:
                redis_us = await self._store.announce(self._card)
            except (BrokerUnavailable, OutcomeUnknown) as error:
                REDIS_BROKEN.add("announce")
                log.debug("could not announce this front-end", error=str(error))
            else:
                heard_s = time.monotonic()
                REDIS_ROUND_TRIP.observe(heard_s - sent_s, "announce")
                self._clock.note(redis_us, sent_s=sent_s, heard_s=heard_s)
            await asyncio.sleep(PERIOD_S)

    async def _leave(self) -> None:
        try:
            await self._store.leave(self._card.server)
        except (BrokerUnavailable, OutcomeUnknown) as error:
            log.debug("could not take this front-end off the list", error=str(error))

    async def _sample(self) -> None:
        while True:
            if not self._watchers and time.monotonic() > self._wanted_until:
                self._samples.clear()
                self._sampled.clear()
                self._wanted.clear()
                await self._wanted.wait()
            try:
                self._keep(await self._look())
                self._sampled.set()
                self._next.set()
                self._next = asyncio.Event()
            except (BrokerUnavailable, OutcomeUnknown) as error:
                log.debug("could not sample", error=str(error))
            await asyncio.sleep(PERIOD_S)

    def _keep(self, sample: Sample) -> None:
        self._samples.append(sample)
        while len(self._samples) > LEAST and sample.at_s - self._samples[0].at_s > WINDOW_S:
            self._samples.popleft()

    async def _look(self) -> Sample:
        models = {}
        for name in self._models():
            stats = await self._store.model(name)
            if stats is not None:
                models[name] = stats
        return Sample(time.monotonic(), time.time(), models, await self._store.front_ends())
