"""What the RPCs of an operator need: dead letters, and forgetting a model."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID, uuid5

from despacho.job.v1.job_pb2 import Job
from dispatch import errors, keys
from dispatch.letters import Letter, LetterPage
from dispatch.link import Link
from dispatch.operations import Operation
from server import names
from server.ports import DeadLetters, Fleet, Operations
from server.surely import surely

REPLAYS: Final = UUID("0b3c5c6e-6f2d-4d0f-9a5e-7f3f3b1d8c42")
"""Namespace of the request ids of replays: never to be changed."""

VIEW_S: Final = keys.WORKER_TTL_MS / 1000 + 1.0
"""How long the fleet's view of a forgotten model may take to go, seconds: its last worker may
have left a moment ago, and a look takes its time.
"""


class Admin:
    """Looks after what was set aside, for the operators of one front-end."""

    def __init__(
        self, letters: DeadLetters, operations: Operations, link: Link, fleet: Fleet
    ) -> None:
        self._letters = letters
        self._operations = operations
        self._link = link
        self._fleet = fleet

    async def page(self, model: str, *, after: str, count: int, timeout_s: float) -> LetterPage:
        """Return letters of a model, the oldest first, without their images.

        Raises:
            BrokerUnavailable: try again.
        """
        return await surely(
            self._link,
            lambda: self._letters.page(model, after=after, count=count),
            timeout_s=timeout_s,
        )

    async def get(self, model: str, letter_id: str, *, timeout_s: float) -> Letter:
        """Return one letter with its image.

        Raises:
            DeadLetterNotFound: it is not there.
            BrokerUnavailable: try again.
        """
        return await surely(
            self._link, lambda: self._letters.get(model, letter_id), timeout_s=timeout_s
        )

    async def replay(
        self, model: str, letter_id: str, *, caller: str, traceparent: str, timeout_s: float
    ) -> Operation:
        """Submit a letter as an operation of the caller; then delete the letter.

        Raises:
            DeadLetterNotFound: it is not there.
            QueueFull: it was not submitted, and is still there.
            BrokerUnavailable: it may have been submitted, and may still be there; repeat it.
        """
        ends_at = time.monotonic() + timeout_s
        letter = await self.get(model, letter_id, timeout_s=timeout_s)
        asked = letter.content.job
        # The id follows from the letter: should this process die before the letter is
        # deleted, replaying it again finds the same operation.
        operation = await self._operations.submit(
            Job(
                model=model,
                top_k=asked.top_k,
                include_scores=asked.include_scores,
                traceparent=traceparent,
            ),
            letter.image or b"",
            caller=caller,
            request_id=str(uuid5(REPLAYS, names.dead_letter_name(model, letter.id))),
            is_synced=False,
            timeout_s=ends_at - time.monotonic(),
        )
        # One that an earlier try submitted, and that failed since, was no second chance.
        if operation.reply is None or operation.reply.HasField("answer"):
            await self.purge(model, [letter.id], timeout_s=ends_at - time.monotonic())
        return operation

    async def purge(self, model: str, letter_ids: Sequence[str], *, timeout_s: float) -> int:
        """Delete letters; return how many there were.

        Raises:
            BrokerUnavailable: some may have been deleted; repeat it.
        """
        return await surely(
            self._link, lambda: self._letters.purge(model, letter_ids), timeout_s=timeout_s
        )

    async def clear(self, model: str, *, timeout_s: float) -> int:
        """Delete all letters of a model; return how many there were.

        Raises:
            BrokerUnavailable: they may have been deleted; repeat it.
        """
        return await surely(self._link, lambda: self._letters.clear(model), timeout_s=timeout_s)

    async def forget(self, model: str, *, timeout_s: float) -> None:
        """Forget a model; when this returns, this front-end does not show it any more.

        Raises:
            ModelNotFound: nobody ever served it.
            ModelInUse: it has live workers, jobs, or dead letters.
            BrokerUnavailable: it may be half done; repeat it.
        """
        was_shown = self._shows(model)
        if not (was_shown or names.is_model_name(model)):
            # Nobody can have served it, and every key would carry a name of any length.
            raise errors.ModelNotFound(model)
        was_there = await surely(
            self._link, lambda: self._letters.forget(model), timeout_s=timeout_s
        )
        # What is shown and is not there has just been forgotten, perhaps by the first
        # of two tries of this call.
        if not (was_shown or was_there):
            raise errors.ModelNotFound(model)
        with suppress(TimeoutError):
            async with asyncio.timeout(min(VIEW_S, timeout_s)):
                while self._shows(model):
                    await self._fleet.changed()

    def _shows(self, model: str) -> bool:
        return any(view.card.name == model for view in self._fleet.models())
