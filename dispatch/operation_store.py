"""The front-ends' door to operations: submit, look, list, cancel, delete."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Final

from redis.exceptions import OutOfMemoryError

from dispatch import errors, keys, overdue, scripts
from dispatch.disk import Disk
from dispatch.jobs import OnSpared, Outcome, Priority
from dispatch.line import REPLY_TIMEOUT_S, Line, checked, timeout_of
from dispatch.operation_commands import end_operation, look_at, submit_operation
from dispatch.operations import (
    NewOperation,
    Operation,
    OperationKey,
    OperationLimits,
    OperationPage,
)
from dispatch.overdue import OverdueEntry
from dispatch.scripts import Command
from dispatch.shared_line import SharedLine

SYNCED_CALLS: Final = 1024
SYNCED_BYTES: Final = 64 * 1024 * 1024
"""In one round trip: each takes as long as the disk does, so that all who wait share it. No more,
as bytes that are being sent are there three times more."""

PAGE_BYTES: Final = 3 * 1024 * 1024
"""Jobs and replies on one page: callers accept 4 MiB, names and times included."""

PAGE_STEP: Final = 50
"""How many operations of a page are looked at together: their replies share one time-out."""

PRUNE_COUNT: Final = 200
"""How many of a caller's oldest operations are looked after when there are too many."""

PRUNE_ONE_IN: Final = 32
"""And with how many submissions they are, by chance, so that those that are gone do not add up."""


class OperationStore(AbstractAsyncContextManager["OperationStore"]):
    """Typed access for one front-end process; `run` must run."""

    def __init__(
        self, url: str, limits: OperationLimits, *, on_spared: OnSpared | None = None
    ) -> None:
        """Connect when needed.

        Args:
            url: `redis://`, `rediss://` or `unix://`.
            limits: what operations of one model may take up.
            on_spared: told of each that was ended here before a worker had it.
        """
        self._limits = limits
        self._on_spared = on_spared
        self._shared = SharedLine(Line(url, reply_timeout_s=REPLY_TIMEOUT_S))
        self._looking = asyncio.Lock()
        self._failed_looks = 0
        # WAITAOF blocks its connection, so that others should not use it.
        synced_line = Line(url, reply_timeout_s=REPLY_TIMEOUT_S)
        self._disk = Disk(synced_line)
        self._synced = SharedLine(
            synced_line, self._exchange_synced, most_calls=SYNCED_CALLS, most_bytes=SYNCED_BYTES
        )

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._shared.aclose()
        await self._synced.aclose()

    async def run(self) -> None:
        """Talk to Redis until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._shared.run())
            tasks.create_task(self._synced.run())

    async def submit(self, new: NewOperation, *, is_synced: bool) -> Operation:
        """Admit an operation, or find the one that the same request was admitted as.

        Args:
            new: what to do.
            is_synced: whether it must be on the disk before this returns.

        Raises:
            QueueFull, RequestIdReused, ModelNotFound: it was refused.
            DurabilityUnavailable: Redis cannot say what is on the disk; nothing was done.
            BrokerUnavailable: nothing was done, or it is not known to be on the disk.
            OutcomeUnknown: it may or may not have been done; repeat it.
        """
        size_bytes = len(new.image) + new.job.ByteSize() + keys.ENTRY_OVERHEAD_BYTES
        if random.randrange(PRUNE_ONE_IN) == 0:  # noqa: S311
            await self._prune(new.key)
        line = self._synced if is_synced else self._shared
        admit = submit_operation(new, self._limits, size_bytes=size_bytes)
        commands = (admit, look_at(new.key))
        code, look = await line.call(*commands, size_bytes=size_bytes)
        if code == -3 and await self._prune(new.key):  # noqa: PLR2004 - as submit.lua says
            code, look = await line.call(*commands, size_bytes=size_bytes)
        self._check_admitted(new, code)
        return _parsed(new.key, look)

    async def _prune(self, key: OperationKey) -> bool:
        """Forget operations of the caller whose time is over; return whether there may be room."""
        index = keys.operations(key.model, key.caller)
        (oldest,) = await self._shared.call(("ZRANGE", index, 0, PRUNE_COUNT - 1, "WITHSCORES"))
        entries = _entries(oldest)
        if not entries:
            return True  # deleted meanwhile, all of them
        found = await self._shared.call(
            *(("EXISTS", keys.operation(key.model, name)) for name, _ in entries)
        )
        gone = [score for (_, score), is_there in zip(entries, found, strict=True) if not is_there]
        await self._forget(index, gone)
        return bool(gone)

    def _check_admitted(self, new: NewOperation, code: Any) -> None:
        model, limits = new.key.model, self._limits
        if isinstance(code, OutOfMemoryError):
            raise errors.QueueFull(f"model:{model}/memory", "the broker's memory is full")
        match checked(code):
            case -1:
                raise errors.QueueFull(
                    f"model:{model}/operations", f"{limits.jobs} operations are waiting already"
                )
            case -2:
                raise errors.QueueFull(
                    f"model:{model}/operation-bytes",
                    f"{limits.size_bytes} bytes of images of operations are waiting already",
                )
            case -3:
                raise errors.QueueFull(
                    "caller/operations",
                    f"the caller has {limits.kept} operations already: delete what was fetched",
                )
            case -4:
                raise errors.RequestIdReused(
                    f"request_id {new.job.request_id} was used for other content"
                )
            case -5:
                raise errors.ModelNotFound(model)

    async def first_of(self, candidates: Sequence[OperationKey]) -> OperationKey | None:
        """Return the first of these that is there; None: none is.

        Raises:
            BrokerUnavailable, OutcomeUnknown: could not find out.
        """
        if not candidates:
            return None
        looks = await self._shared.call(*map(look_at, candidates))
        found = zip(candidates, looks, strict=True)
        return next((key for key, look in found if checked(look) is not None), None)

    async def get(self, key: OperationKey) -> Operation:
        """Return an operation; one whose time is over, and that no worker ended, ends here.

        Raises:
            OperationNotFound: the caller has none of this name.
            BrokerUnavailable, OutcomeUnknown: could not find out.
        """
        (look,) = await self._shared.call(look_at(key))
        operation = _parsed(key, look)
        if not operation.is_overdue:
            return operation
        code, look = await self._shared.call(end_operation(key, Outcome.EXPIRED), look_at(key))
        self._noted_end(key, Outcome.EXPIRED, code)
        return _parsed(key, look)

    async def cancel(self, key: OperationKey) -> int:
        """End an operation, if it has not ended already.

        Returns:
            1 if no worker had it, 2 if one had or gave it back, 0 if it had ended.

        Raises:
            OperationNotFound: the caller has none of this name.
            BrokerUnavailable: nothing was done.
            OutcomeUnknown: repeat it.
        """
        (code,) = await self._shared.call(end_operation(key, Outcome.CANCELLED))
        return self._noted_end(key, Outcome.CANCELLED, code)

    async def delete(self, key: OperationKey) -> int:
        """Forget an operation; one that has not ended is cancelled, as nobody can fetch it.

        Returns:
            As `cancel` does.

        Raises:
            OperationNotFound: the caller has none of this name.
            BrokerUnavailable: nothing was done.
            OutcomeUnknown: repeat it.
        """
        names = [keys.operation(key.model, key.id), keys.operations(key.model, key.caller)]
        code, deleted = await self._shared.call(
            end_operation(key, Outcome.CANCELLED),
            scripts.DELETE_OPERATION.call(names, (key.caller, key.id)),
        )
        checked(deleted)
        return self._noted_end(key, Outcome.CANCELLED, code)

    async def page(
        self, model: str, caller: str, *, before: int, count: int, used_bytes: int = 0
    ) -> OperationPage:
        """Return a caller's operations of a model, the newest first.

        Args:
            model: which model.
            caller: whose.
            before: where the page begins: `next_before` of the one before, or any large number.
            count: most operations on the page.
            used_bytes: of the page, by operations of other models.

        Raises:
            BrokerUnavailable, OutcomeUnknown: could not find out.
        """
        operations: list[Operation] = []
        while True:
            step = min(count - len(operations), PAGE_STEP)
            found = await self._look_before(model, caller, before, step)
            for score, look in found:
                if look:
                    operation = Operation.parsed(look)
                    # What is larger than a page comes alone.
                    if used_bytes and used_bytes + operation.size_bytes > PAGE_BYTES:
                        return OperationPage(operations, used_bytes, before)
                    operations.append(operation)
                    used_bytes += operation.size_bytes
                before = score
            if len(found) < step:
                return OperationPage(operations, used_bytes, None)
            if len(operations) == count:
                return OperationPage(operations, used_bytes, before)

    async def _look_before(
        self, model: str, caller: str, before: int, count: int
    ) -> list[tuple[int, Any]]:
        """Return scores and looks, the newest first; a look is None where time was over."""
        index = keys.operations(model, caller)
        (found,) = await self._shared.call(
            (
                *("ZRANGE", index, f"({before}", "-inf", "BYSCORE", "REV"),
                *("LIMIT", 0, count, "WITHSCORES"),
            )
        )
        entries = _entries(found)
        if not entries:
            return []
        # One after the other: what many lists are answered at once takes long to come, and
        # whoever asks for something else beside them waits for all of it.
        failed_before = self._failed_looks
        async with self._looking:
            # Else each in turn would wait for as long, to find out for itself.
            if self._failed_looks != failed_before:
                raise errors.BrokerUnavailable("the broker cannot be reached")
            try:
                looks = await self._shared.call(
                    *(look_at(OperationKey(model, name, caller)) for name, _ in entries)
                )
            except (errors.BrokerUnavailable, errors.OutcomeUnknown):
                self._failed_looks += 1
                raise
        pairs = [(score, checked(look)) for (_, score), look in zip(entries, looks, strict=True)]
        await self._forget(index, [score for score, look in pairs if not look])
        return pairs

    async def _forget(self, index: str, scores: Sequence[int]) -> None:
        # By score: one that was submitted again meanwhile has another.
        if scores:
            await self._shared.call(
                *(("ZREMRANGEBYSCORE", index, score, score) for score in scores)
            )

    async def end_overdue(self, model: str, *, overdue_s: float = overdue.OVERDUE_S) -> int:
        """End operations that are long overdue, which workers do when there are any.

        Args:
            model: of which model.
            overdue_s: how long after their deadlines.

        Returns:
            How many were ended.

        Raises:
            BrokerUnavailable, OutcomeUnknown: some may have been ended.
        """
        stream = keys.jobs(model, Priority.OPERATION)
        end = partial(self._end_entry, model)
        return await overdue.end_overdue(self._shared.call, stream, end, overdue_s=overdue_s)

    async def _end_entry(self, model: str, entry: OverdueEntry) -> bool:
        record = keys.operation(model, entry.job_id)
        (caller,) = await self._shared.call(("HGET", record, "caller"))
        # Without a record it is nobody's, and would keep those behind it from their end.
        key = OperationKey(model, entry.job_id, (checked(caller) or b"").decode())
        (code,) = await self._shared.call(
            end_operation(key, Outcome.EXPIRED, entry=(entry.id, entry.size))
        )
        return code != -1 and self._noted_end(key, Outcome.EXPIRED, code) > 0

    def _noted_end(self, key: OperationKey, outcome: Outcome, code: Any) -> int:
        if checked(code) == -1:
            raise _not_found(key)
        if code == 1 and self._on_spared is not None:
            self._on_spared(key.model, outcome)
        return int(code)

    async def _exchange_synced(self, commands: Sequence[Command], size_bytes: int) -> list[Any]:
        return await self._disk.write(commands, timeout_s=timeout_of(size_bytes))


def _entries(found: Any) -> list[tuple[str, int]]:
    """Return ids and scores of an index."""
    names, scores = checked(found)[::2], found[1::2]
    return [(name.decode(), int(float(score))) for name, score in zip(names, scores, strict=True)]


def _parsed(key: OperationKey, look: Any) -> Operation:
    if checked(look) is None:
        raise _not_found(key)
    return Operation.parsed(look)


def _not_found(key: OperationKey) -> errors.OperationNotFound:
    return errors.OperationNotFound(f"models/{key.model}/operations/{key.id}")
