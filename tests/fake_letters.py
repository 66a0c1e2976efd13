"""Dead letters without Redis."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from despacho.job.v1 import job_pb2
from dispatch import errors
from dispatch.letters import Letter, LetterPage

if TYPE_CHECKING:
    from tests.front_end import FakeFleet  # which imports this


class FakeDeadLetters:
    """Keeps letters in memory; `failures` are raised first, one a call, when it is done."""

    def __init__(self, fleet: "FakeFleet") -> None:
        self.kept: dict[str, Letter] = {}
        self.failures: list[errors.DespachoError] = []
        self._fleet = fleet

    def add(self, number: int, *, job: job_pb2.Job, image: bytes) -> str:
        letter_id = f"{1_700_000_000_000 + number}-0"
        content = job_pb2.DeadLetter(job=job, deliveries=2, reason=errors.JobPoisoned.reason)
        self.kept[letter_id] = Letter(letter_id, content, len(image) + 300, image)
        return letter_id

    async def page(self, model: str, *, after: str, count: int) -> LetterPage:
        del model
        self._fail()
        behind = [replace(letter, image=None) for name, letter in self.kept.items() if name > after]
        found = behind[:count]
        return LetterPage(found, found[-1].id if len(behind) > count else None)

    async def get(self, model: str, letter_id: str) -> Letter:
        self._fail()
        if letter_id not in self.kept:
            raise errors.DeadLetterNotFound(f"models/{model}/deadLetters/{letter_id}")
        return self.kept[letter_id]

    async def purge(self, model: str, letter_ids: Sequence[str]) -> int:
        del model
        purged = [self.kept.pop(each) for each in letter_ids if each in self.kept]
        self._fail()
        return len(purged)

    async def clear(self, model: str) -> int:
        return await self.purge(model, list(self.kept))

    async def forget(self, model: str) -> bool:
        if model in self._fleet.views and self._fleet.views[model].ready_workers:
            raise errors.ModelInUse(f"model {model!r} still has live workers: 1")
        was_there = self._fleet.forget(model)
        self._fail()
        return was_there

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
