"""Wakes those who wait for operations, wherever these end."""

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import aclosing, contextmanager

from dispatch.done_stream import DoneStream
from dispatch.errors import BrokerUnavailable, OutcomeUnknown
from telemetry.absence import Absence

RETRY_PAUSE_S = 0.1


class DoneWatch:
    """One task per model, from the first call on that waits for an operation of it.

    It ends when the model is forgotten.
    """

    def __init__(self, stream_of: Callable[[str], DoneStream], tasks: asyncio.TaskGroup) -> None:
        """Watch nothing yet.

        Args:
            stream_of: opens the news of a model.
            tasks: owns the reading tasks.
        """
        self._stream_of = stream_of
        self._owner = tasks
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_watching: dict[str, asyncio.Event] = {}
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}

    @contextmanager
    def expect(self, model: str, operation_id: str) -> Iterator[asyncio.Event]:
        """Set the event whenever it is worth looking at the operation again."""
        key = model, operation_id
        event = asyncio.Event()
        self._waiting.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[key].discard(event)
            if not self._waiting[key]:
                del self._waiting[key]

    async def watch(self, model: str) -> None:
        """Return when the news of a model are being read: what ends later is not missed.

        Only for those who `expect` an operation of it.
        """
        if model not in self._tasks:
            self._is_watching[model] = asyncio.Event()
            task = self._owner.create_task(self._read(model), name=f"done:{model}")
            self._tasks[model] = task
        await self._is_watching[model].wait()

    def watch_no_other(self, models: Collection[str]) -> None:
        """Watch other models no longer, unless somebody waits for an operation of them."""
        wanted = {*models, *(model for model, _ in self._waiting)}
        for model in self._tasks.keys() - wanted:
            self._tasks.pop(model).cancel()
            del self._is_watching[model]

    def stop(self) -> None:
        """Watch no more."""
        for task in self._tasks.values():
            task.cancel()

    async def _read(self, model: str) -> None:
        absence = Absence("news of operations")
        async with aclosing(self._stream_of(model)) as stream:
            while True:
                try:
                    await stream.open()
                    absence.over()
                    self._is_watching[model].set()
                    # What ended while nobody read is found by looking.
                    self._wake_all(model)
                    while True:
                        for operation_id in await stream.read():
                            self._wake(model, operation_id)
                except (BrokerUnavailable, OutcomeUnknown) as error:
                    self._is_watching[model].clear()
                    absence.noticed(error, model=model)
                    await asyncio.sleep(RETRY_PAUSE_S)

    def _wake(self, model: str, operation_id: str) -> None:
        for event in self._waiting.get((model, operation_id), ()):
            event.set()

    def _wake_all(self, model: str) -> None:
        for (each, _), events in self._waiting.items():
            if each == model:
                for event in events:
                    event.set()
