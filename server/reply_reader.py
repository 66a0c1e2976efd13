"""One task per model that reads this process's replies and hands them over."""

import asyncio
from collections.abc import Collection
from contextlib import aclosing, suppress

from dispatch.errors import BrokerUnavailable, DespachoError, OutcomeUnknown
from dispatch.job_store import JobStore
from dispatch.link import Link
from dispatch.reply_stream import ReplyStream
from server.pending import PendingReplies
from server.redis_clock import RedisClock
from telemetry.absence import Absence
from telemetry.metrics_catalogue import REDIS_BROKEN, REPLY_LAG

RETRY_PAUSE_S = 0.1


class ReplyReader:
    """Reads the replies of each model as soon as the model is known.

    One task and connection per model, so that a new model need not wait for a
    blocked read of the others.
    """

    def __init__(
        self,
        store: JobStore,
        link: Link,
        pending: PendingReplies,
        tasks: asyncio.TaskGroup,
        *,
        clock: RedisClock | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            store: where the replies are.
            link: told when a read breaks.
            pending: gets the replies.
            tasks: owns the reading tasks.
            clock: the time of Redis; None: how late replies are is not measured.
        """
        self._clock = clock or RedisClock()
        self._store = store
        self._link = link
        self._pending = pending
        self._owner = tasks
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def listen(self, model: str) -> None:
        """Read the replies of a model from now on; return when workers can send them.

        Raises:
            BrokerUnavailable, OutcomeUnknown: try again.
        """
        if model in self._tasks:
            return
        stream = self._store.replies(model)
        try:
            await stream.open()
        except DespachoError:
            await stream.aclose()
            raise
        self._tasks[model] = self._owner.create_task(self._read(stream), name=f"replies:{model}")

    async def listen_to_no_other(self, models: Collection[str]) -> None:
        """Read the replies of other models no longer, unless calls still wait for some."""
        ended = [
            self._tasks.pop(model)
            for model in list(self._tasks)
            if model not in models and not self._pending.waits_for(model)
        ]
        for task in ended:
            task.cancel()
        if ended:
            # The last thing it does is to delete the stream, which the model may need again.
            await asyncio.wait(ended)

    def stop(self) -> None:
        """Stop reading."""
        for task in self._tasks.values():
            task.cancel()

    async def _read(self, stream: ReplyStream) -> None:
        absence = Absence("replies")
        async with aclosing(stream):
            try:
                while True:
                    await self._read_once(stream, absence)
            finally:
                with suppress(DespachoError):
                    await stream.delete()

    async def _read_once(self, stream: ReplyStream, absence: Absence) -> None:
        try:
            replies = await stream.read()
            for reply in replies:
                self._pending.deliver(reply)
            if replies:
                # Who waited for them goes first: those are late, and the next read is early.
                await asyncio.sleep(0)
        except (BrokerUnavailable, OutcomeUnknown) as error:
            REDIS_BROKEN.add("replies")
            # A broken read is often the first sign of a lost broker.
            self._link.lost()
            absence.noticed(error)
            await asyncio.sleep(RETRY_PAUSE_S)
        else:
            absence.over()
            lag_s = self._clock.since_s(stream.oldest_ms) if replies else None
            if lag_s is not None:
                REPLY_LAG.observe(lag_s)
