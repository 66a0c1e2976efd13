"""The front-ends' door to what is left over: dead letters, and models nobody serves."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final

from google.protobuf.message import DecodeError

from despacho.job.v1.job_pb2 import DeadLetter
from dispatch import keys, scripts
from dispatch.errors import DeadLetterNotFound, ModelInUse
from dispatch.letters import Letter, LetterPage, is_letter_id
from dispatch.line import REPLY_TIMEOUT_S, Line, checked
from dispatch.scripts import Command
from dispatch.shared_line import SharedLine

STEP_BYTES: Final = 8 * 1024 * 1024
"""Images that one script reads, but for the last one: nobody else is served meanwhile."""


class DeadLetters(AbstractAsyncContextManager["DeadLetters"]):
    """Typed access for one front-end process; `run` must run."""

    def __init__(self, url: str, *, max_image_bytes: int) -> None:
        """Connect when needed.

        Args:
            url: `redis://`, `rediss://` or `unix://`.
            max_image_bytes: largest image that a letter may have.
        """
        self._max_image_bytes = max_image_bytes
        # Its own: an image on its way should not hold up operations.
        self._shared = SharedLine(Line(url, reply_timeout_s=REPLY_TIMEOUT_S))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._shared.aclose()

    async def run(self) -> None:
        """Talk to Redis until cancelled."""
        await self._shared.run()

    async def page(self, model: str, *, after: str, count: int) -> LetterPage:
        """Return letters of a model, the oldest first, without their images.

        Args:
            model: which model.
            after: where the page begins: `next_after` of the one before, or `letters.START`.
            count: most letters on the page.

        Raises:
            BrokerUnavailable, OutcomeUnknown: could not find out.
        """
        letters: list[Letter] = []
        while True:
            (reply,) = await self._shared.call(
                scripts.LIST_DEAD_LETTERS.call(
                    [keys.dead(model)], (after, count - len(letters), STEP_BYTES)
                )
            )
            has_more, *found = checked(reply)
            letters += [
                Letter(entry_id.decode(), _content(text), int(size))
                for entry_id, text, size in zip(found[::3], found[1::3], found[2::3], strict=True)
            ]
            if not has_more:
                return LetterPage(letters, None)
            after = letters[-1].id
            if len(letters) >= count:
                return LetterPage(letters, after)

    async def get(self, model: str, letter_id: str) -> Letter:
        """Return one letter with its image.

        Raises:
            DeadLetterNotFound: it is not there.
            BrokerUnavailable, OutcomeUnknown: could not find out.
        """
        entries = []
        if is_letter_id(letter_id):
            (reply,) = await self._shared.call(
                ("XRANGE", keys.dead(model), letter_id, letter_id),
                size_bytes=self._max_image_bytes,
            )
            entries = checked(reply)
        if not entries:
            raise DeadLetterNotFound(f"models/{model}/deadLetters/{letter_id}")
        ((entry_id, values),) = entries
        fields = dict(zip(values[::2], values[1::2], strict=True))
        return Letter(
            entry_id.decode(),
            _content(fields.get(b"letter", b"")),
            int(fields.get(b"size", 0)),
            fields.get(b"image", b""),
        )

    async def purge(self, model: str, letter_ids: Sequence[str]) -> int:
        """Delete letters by id.

        Returns:
            How many there were.

        Raises:
            BrokerUnavailable, OutcomeUnknown: some may have been deleted; repeat it.
        """
        left = [each for each in letter_ids if is_letter_id(each)]
        count = 0
        while left:
            (reply,) = await self._shared.call(
                scripts.PURGE_DEAD_LETTERS.call(
                    [keys.dead(model), keys.load(model)], (STEP_BYTES, *left)
                )
            )
            looked, deleted = checked(reply)
            left = left[looked:]
            count += deleted
        return count

    async def clear(self, model: str) -> int:
        """Delete all letters of a model.

        Returns:
            How many there were.

        Raises:
            BrokerUnavailable: nothing was done.
            OutcomeUnknown: repeat it.
        """
        (count,) = await self._shared.call(
            scripts.CLEAR_DEAD_LETTERS.call([keys.dead(model), keys.load(model)])
        )
        return int(checked(count))

    async def forget(self, model: str) -> bool:
        """Delete what is left of a model, so that it never was.

        Returns:
            Whether anything was left.

        Raises:
            ModelInUse: it has live workers, jobs, or dead letters.
            BrokerUnavailable, OutcomeUnknown: it may be half done; repeat it.
        """
        (workers,) = await self._shared.call(("SMEMBERS", keys.workers(model)))
        (reply,) = await self._shared.call(
            _forget_command(model, [name.decode() for name in checked(workers)])
        )
        *left, deleted = checked(reply)
        counts = zip(("live workers", "jobs", "dead letters"), left, strict=True)
        reasons = [f"{what}: {count}" for what, count in counts if count]
        if reasons:
            raise ModelInUse(f"model {model!r} still has {', '.join(reasons)}")
        # Last, and alone as it is in another slot. A worker that starts in between
        # lists the model again with its next word.
        (removed,) = await self._shared.call(("SREM", keys.MODELS, model))
        was_listed = bool(checked(removed))
        return was_listed or bool(deleted)


def _forget_command(model: str, workers: Sequence[str]) -> Command:
    return scripts.FORGET_MODEL.call(
        [
            *(keys.workers(model), keys.dead(model)),
            *(keys.card(model), keys.load(model), keys.totals(model), keys.done(model)),
            *keys.job_streams(model),
            *(keys.worker(model, name) for name in workers),
        ],
        workers,
    )


def _content(text: bytes) -> DeadLetter:
    try:
        return DeadLetter.FromString(text)
    except DecodeError:
        return DeadLetter()  # not written by a worker of ours; it can still be purged
