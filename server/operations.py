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
from server import names
from server.done_watch import DoneWatch
from server.ports import Fleet
from server.room import room_in_s
from server.surely import PAUSE_S, surely

KEPT_RETRY_S: Final = 60.0
"""When to come back to what only the end of kept operations makes possible."""

LAST_LOOK_S: Final = 0.1
"""How long before its end a wait looks for the last time."""

FIRST_LOOK_S: Final = 1.0
"""How long the first look of a wait may take at least: who wishes to wait for no time asks how far
it is. Who has no more time hangs up."""

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
            QueueFull, RequestIdReused, ModelNotFound, DurabilityUnavailable: refused.
            BrokerUnavailable: not accepted, or not known to be; repeat it.
        """
        ends_at = time.monotonic() + timeout_s
        new = NewOperation.of(job, image, caller=caller, request_id=request_id or str(uuid4()))
        if request_id:
            await self._check_unused_elsewhere(new, timeout_s)
        try:
            return await surely(
                self._link,
                lambda: self._submit(new, is_synced=is_synced),
                timeout_s=ends_at - time.monotonic(),
            )
        except errors.QueueFull as refusal:
            # Forgotten meanwhile, it is full all the same.
            with suppress(errors.ModelNotFound):
                refusal.retry_after_s = self._retry_after_s(refusal, job.model)
            raise

    async def _submit(self, new: NewOperation, *, is_synced: bool) -> Operation:
        while True:
            try:
                return await self._store.submit(new, is_synced=is_synced)
            except errors.ModelNotFound:
                # A Redis that came back empty hears from the workers within a second, and calls
                # are accepted meanwhile.
                if self._fleet.get(new.key.model).ready_workers == 0:
                    raise
            await asyncio.sleep(PAUSE_S)

    def _retry_after_s(self, refusal: errors.QueueFull, model: str) -> float:
        if refusal.subject.startswith(f"model:{model}/operation"):
            view = self._fleet.get(model)
            return room_in_s(view.queued_operations, view.drain_per_s)
        # Not a matter of draining: the caller has to delete something, or time to pass.
        is_the_callers = refusal.subject.startswith("caller/")
        return KEPT_RETRY_S if is_the_callers else refusal.retry_after_s

    async def _check_unused_elsewhere(self, new: NewOperation, timeout_s: float) -> None:
        """Refuse an id that the caller has used for another model, whose keys lie elsewhere."""
        others = [
            OperationKey(view.card.name, new.key.id, new.key.caller)
            for view in self._fleet.models()
            if view.card.name != new.key.model
        ]
        if await surely(self._link, lambda: self._store.first_of(others), timeout_s=timeout_s):
            raise errors.RequestIdReused(
                f"request_id {new.job.request_id} was used for another model"
            )

    async def find(self, operation_id: str, caller: str, *, timeout_s: float) -> OperationKey:
        """Return which operation of any model has this id; ids are those of one caller.

        Raises:
            OperationNotFound: the caller has none, or of a model that was forgotten.
            BrokerUnavailable: try again.
        """
        candidates = [
            OperationKey(view.card.name, operation_id, caller) for view in self._fleet.listed()
        ]
        found = await surely(
            self._link, lambda: self._store.first_of(candidates), timeout_s=timeout_s
        )
        if found is None:
            raise errors.OperationNotFound(names.operation_name(names.ANY, operation_id))
        return found

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
        operation = await self.get(key, timeout_s=max(timeout_s, FIRST_LOOK_S))
        if operation.progress is Progress.DONE:
            return operation
        with self._done.expect(key.model, key.id) as news:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, ends_at - time.monotonic())):
                    await self._done.watch(key.model)
            while True:
                # Cleared before the look: what ends after it sets it again.
                news.clear()
                operation = await self._look(key, operation, ends_at)
                left_s = ends_at - time.monotonic() - LAST_LOOK_S
                if operation.progress is Progress.DONE or left_s <= 0:
                    return operation
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left_s, LOOK_AGAIN_S)):
                        await news.wait()

    async def _look(self, key: OperationKey, last: Operation, ends_at: float) -> Operation:
        """Return an operation as it is, or, should the time end before, as it was last."""
        is_away = False
        while True:
            try:
                async with asyncio.timeout(max(0.0, ends_at - time.monotonic())):
                    return await self._store.get(key)
            except TimeoutError as error:
                # The last look has little time, which may end before it finds out by itself.
                if is_away or not self._link.is_up:
                    raise errors.BrokerUnavailable("the broker cannot be reached") from error
                return last
            except (errors.BrokerUnavailable, errors.OutcomeUnknown) as error:
                # It is safe in Redis: wait for both.
                is_away = True
                if time.monotonic() + PAUSE_S >= ends_at:
                    raise errors.BrokerUnavailable("the broker cannot be reached") from error
            except errors.QueueFull:
                # Of the looks of others, who were woken together: there is room soon.
                if time.monotonic() + PAUSE_S >= ends_at:
                    return last
            await asyncio.sleep(PAUSE_S)

    async def page(
        self, model: str, caller: str, *, before: int, count: int, used_bytes: int, timeout_s: float
    ) -> OperationPage:
        """Return some of a caller's operations of a model, the newest first.

        Raises:
            BrokerUnavailable: try again.
        """
        return await surely(
            self._link,
            lambda: self._store.page(
                model, caller, before=before, count=count, used_bytes=used_bytes
            ),
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
        is_again = False

        async def delete() -> None:
            nonlocal is_again
            try:
                await self._store.delete(key)
            except errors.OutcomeUnknown:
                is_again = True
                raise
            except errors.OperationNotFound:
                # Perhaps the first try has deleted it, and nobody heard.
                if not is_again:
                    raise

        await surely(self._link, delete, timeout_s=timeout_s)
