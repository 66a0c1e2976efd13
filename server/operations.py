"""What the RPCs need of operations: submit, look, wait, list, cancel, delete."""

import asyncio
import time
from contextlib import suppress
from typing import Final
from uuid import uuid4

from despacho.job.v1.job_pb2 import Job
from dispatch import errors
from dispatch.link import Link
from dispatch.operation_store import OperationStore
from dispatch.operations import (
    NewOperation,
    Operation,
    OperationKey,
    OperationPage,
    Progress,
)
from server.done_watch import DoneWatch
from server.ports import Fleet
from server.room import room_in_s
from server.surely import PAUSE_S, surely

LOOK_AGAIN_S: Final = 10.0
"""A wait looks this often although nothing was heard, should news ever be lost."""


class Operations:
    """Operations of all models, for the callers of one front-end."""

    def __init__(self, store: OperationStore, link: Link, fleet: Fleet, done: DoneWatch) -> None:
        self._store = store
        self._link = link
        self._fleet = fleet
        self._done = done

    async def submit(
        self,
        job: Job,
        image: bytes,
        *,
        caller: str,
        request_id: str,
        is_synced: bool,
        timeout_s: float,
    ) -> Operation:
        """Accept an operation, or find the one that the same request made.

        Args:
            job: what is asked for; `model` is the name of one that `Fleet` knows.
            image: encoded image.
            caller: whose it will be.
            request_id: makes repeating harmless; empty: each time is another operation.
            is_synced: whether it must be on the disk of Redis before this returns.
            timeout_s: time left until the caller's deadline, seconds.

        Raises:
            QueueFull, RequestIdReused, DurabilityUnavailable: refused.
            BrokerUnavailable: not accepted, or not known to be; repeat it.
        """
        new = NewOperation.of(job, image, caller=caller, request_id=request_id or str(uuid4()))
        if request_id:
            await self._check_unused_elsewhere(new, timeout_s)
        try:
            return await surely(
                self._link,
                lambda: self._store.submit(new, is_synced=is_synced),
                timeout_s=timeout_s,
            )
        except errors.QueueFull as refusal:
            view = self._fleet.get(job.model)
            refusal.retry_after_s = room_in_s(view.queued_operations, view.drain_per_s)
            raise

    async def _check_unused_elsewhere(self, new: NewOperation, timeout_s: float) -> None:
        """Refuse an id that the caller has used for another model, whose keys lie elsewhere."""
        others = [
            OperationKey(view.card.name, new.key.id, new.key.caller)
            for view in self._fleet.models()
            if view.card.name != new.key.model
        ]
        if await surely(self._link, lambda: self._store.has(others), timeout_s=timeout_s):
            raise errors.RequestIdReused(
                f"request_id {new.job.request_id} was used for another model"
            )

    async def get(self, key: OperationKey, *, timeout_s: float) -> Operation:
        """Return an operation as it is now.

        Raises:
            OperationNotFound: the caller has none of this name.
            BrokerUnavailable: try again.
        """
        return await surely(self._link, lambda: self._store.get(key), timeout_s=timeout_s)

    async def wait(self, key: OperationKey, *, timeout_s: float) -> Operation:
        """Return an operation when it has ended, or as it is when the time is over.

        Raises:
            OperationNotFound: the caller has none of this name, or deleted it meanwhile.
            BrokerUnavailable: Redis is away, and was when the time was over.
        """
        ends_at = time.monotonic() + timeout_s
        operation = await self.get(key, timeout_s=timeout_s)
        if operation.progress is Progress.DONE:
            return operation
        with self._done.expect(key.model, key.id) as news:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._done.watch(key.model)
            while True:
                # Cleared before the look: what ends after it sets it again.
                news.clear()
                remaining_s = ends_at - time.monotonic()
                try:
                    operation = await self._store.get(key)
                except (errors.BrokerUnavailable, errors.OutcomeUnknown) as error:
                    # It is safe in Redis: wait for both.
                    if remaining_s <= 0:
                        raise errors.BrokerUnavailable("the broker cannot be reached") from error
                    await asyncio.sleep(min(PAUSE_S, remaining_s))
                    continue
                if operation.progress is Progress.DONE or remaining_s <= 0:
                    return operation
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(remaining_s, LOOK_AGAIN_S)):
                        await news.wait()

    async def page(
        self, model: str, caller: str, *, before: int, count: int, timeout_s: float
    ) -> OperationPage:
        """Return some of a caller's operations of a model, the newest first.

        Raises:
            BrokerUnavailable: try again.
        """
        return await surely(
            self._link,
            lambda: self._store.page(model, caller, before=before, count=count),
            timeout_s=timeout_s,
        )

    async def cancel(self, key: OperationKey, *, timeout_s: float) -> None:
        """End an operation, if it has not ended.

        Raises:
            OperationNotFound: the caller has none of this name.
            BrokerUnavailable: it is not known to be done; repeat it.
        """
        await surely(self._link, lambda: self._store.cancel(key), timeout_s=timeout_s)

    async def delete(self, key: OperationKey, *, timeout_s: float) -> None:
        """Forget an operation, and cancel it if it has not ended.

        Raises:
            OperationNotFound: the caller has none of this name.
            BrokerUnavailable: it is not known to be done; repeat it.
        """
        await surely(self._link, lambda: self._store.delete(key), timeout_s=timeout_s)
