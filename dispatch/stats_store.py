"""The front-ends' door to what operators watch: queues, workers, and what front-ends did."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from redis.exceptions import ResponseError

from despacho.job.v1.job_pb2 import FrontEndCard, WorkerCard
from dispatch import keys, scripts
from dispatch.jobs import Priority
from dispatch.line import REPLY_TIMEOUT_S, Line, checked

Card = TypeVar("Card", FrontEndCard, WorkerCard)


@dataclass(frozen=True, slots=True)
class QueueLook:
    """One priority of one model at one moment."""

    entries: int
    """Jobs waiting or in work."""

    claimed: int
    """Those in the hands of workers."""

    oldest_ms: int
    """Since when the oldest of them is there, milliseconds; 0 if there is none."""


@dataclass(frozen=True, slots=True)
class ModelStats:
    """One model at one moment."""

    queues: dict[Priority, QueueLook]

    size_bytes: int
    """What the jobs waiting or in work count for."""

    ended: int
    """Jobs that ended since the totals began."""

    workers: dict[str, WorkerCard]
    """Live workers by name."""


class StatsStore(AbstractAsyncContextManager["StatsStore"]):
    """Typed access for one front-end process. Long-lived tasks only: see `Line`."""

    def __init__(self, url: str) -> None:
        self._line = Line(url, reply_timeout_s=REPLY_TIMEOUT_S)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._line.close()

    async def announce(self, card: FrontEndCard) -> int:
        """Say that a front-end lives and what it has done, for `keys.FRONT_END_TTL_MS`.

        Returns:
            What time it was in Redis, microseconds since 1970.

        Raises:
            BrokerUnavailable, OutcomeUnknown: it may not be heard.
        """
        name = keys.front_end(card.server)
        *done, now = await self._line.call(
            # Also when Redis is full: that is when operators watch.
            scripts.ANNOUNCE_FRONT_END.call(
                [name], (keys.FRONT_END_TTL_MS, card.SerializeToString())
            ),
            scripts.REGISTER.call([keys.FRONT_ENDS], (card.server,)),
            ("TIME",),
        )
        for reply in done:
            checked(reply)
        seconds, microseconds = checked(now)
        return int(seconds) * 1_000_000 + int(microseconds)

    async def leave(self, server_id: str) -> None:
        """Take a front-end off the list.

        Raises:
            BrokerUnavailable, OutcomeUnknown: the next who looks will.
        """
        await self._line.call(
            ("DEL", keys.front_end(server_id)), ("SREM", keys.FRONT_ENDS, server_id)
        )

    async def front_ends(self) -> dict[str, FrontEndCard]:
        """Return the live front-ends by name.

        Raises:
            BrokerUnavailable, OutcomeUnknown: could not find out.
        """
        (members,) = await self._line.call(("SMEMBERS", keys.FRONT_ENDS))
        names = [member.decode() for member in checked(members)]
        if not names:
            return {}
        cards = await self._line.call(*(("GET", keys.front_end(name)) for name in names))
        dead = [name for name, card in zip(names, cards, strict=True) if card is None]
        if dead:
            # One that was only silent adds its name again with its next word.
            await self._line.call(("SREM", keys.FRONT_ENDS, *dead))
        return {
            card.server: card for text in cards if (card := _parsed(FrontEndCard, text)) is not None
        }

    async def model(self, model: str) -> ModelStats | None:
        """Return what a model's queues and workers are doing; None if it cannot be read.

        Raises:
            BrokerUnavailable, OutcomeUnknown: could not find out.
        """
        replies = await self._line.call(
            scripts.LOOK_AT_QUEUES.call(keys.job_streams(model), (keys.GROUP,)),
            ("HGETALL", keys.load(model)),
            ("HGETALL", keys.totals(model)),
            ("SMEMBERS", keys.workers(model)),
        )
        if any(isinstance(reply, ResponseError) for reply in replies):
            return None  # such as keys that are not ours
        queues, load, totals, workers = replies
        try:
            sizes, counts = _counts(load), _counts(totals)
            names = [name.decode() for name in workers]
        except ValueError:
            return None  # the same
        return ModelStats(
            queues={
                priority: QueueLook(*queues[3 * index : 3 * index + 3])
                for index, priority in enumerate(Priority)
            },
            size_bytes=sizes.get("bytes", 0) + sizes.get("operation_bytes", 0),
            ended=sum(count for name, count in counts.items() if name != "accepted"),
            workers=await self._workers(model, names),
        )

    async def _workers(self, model: str, names: Sequence[str]) -> dict[str, WorkerCard]:
        if not names:
            return {}
        (cards,) = await self._line.call(("MGET", *(keys.worker(model, name) for name in names)))
        return {
            card.worker: card
            for text in checked(cards)
            if (card := _parsed(WorkerCard, text)) is not None
        }


def _counts(fields: Sequence[bytes]) -> dict[str, int]:
    values = map(int, fields[1::2])
    return {name.decode(): value for name, value in zip(fields[::2], values, strict=True)}


def _parsed(kind: type[Card], text: Any) -> Card | None:
    """Return what was written; None if it is not there, or none of ours."""
    try:
        return kind.FromString(text) if isinstance(text, bytes) else None
    except DecodeError:
        return None
