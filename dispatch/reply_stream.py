"""The replies to one front-end process for one model."""

import time
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from despacho.job.v1.job_pb2 import Reply
from dispatch import keys, scripts
from dispatch.errors import DespachoError
from dispatch.line import Line, checked
from dispatch.scripts import Command

BLOCK_MS = 2000
RENEW_S = 5.0
READ_COUNT = 256
START = b"0-0"
TRIM_AFTER = 64
"""So many replies that were read may stay until it is quiet: to trim costs as much as to read."""


class ReplyStream:
    """Read by one task, from its own cursor.

    Reading consumes nothing, so a broken connection loses no reply.
    """

    def __init__(self, url: str, model: str, server_id: str) -> None:
        self._key = keys.replies(model, server_id)
        self._line = Line(url, reply_timeout_s=BLOCK_MS / 1000 + 2)
        self._cursor = START
        self._renew_at = 0.0
        self._untrimmed = 0
        """Replies that were read and are still there."""

        self._is_quiet = False
        """Whether nothing came while the last read waited."""

        self.oldest_ms = 0
        """When the first of the replies that were read last came, by the clock of Redis."""

    async def open(self) -> None:
        """Create the stream, or renew its life: workers drop replies to one that is gone.

        Raises:
            BrokerUnavailable, OutcomeUnknown: try again.
        """
        renew = scripts.LISTEN.call([self._key], (keys.REPLIES_TTL_MS,))
        # One after the other: a forgotten script is sent again after what follows it.
        checked((await self._line.call(renew))[0])
        position = checked((await self._line.call(("XINFO", "STREAM", self._key)))[0])
        fields = dict(zip(position[::2], position[1::2], strict=True))
        # A younger stream than the one we read (a failover, a flush) starts its ids again.
        if _parsed(fields[b"last-generated-id"]) < _parsed(self._cursor):
            self._cursor, self._untrimmed = START, 0
        self._renew_at = time.monotonic() + RENEW_S

    async def read(self) -> list[Reply]:
        """Return the next replies, waiting up to `BLOCK_MS` for one.

        Raises:
            BrokerUnavailable, OutcomeUnknown: nothing is lost; read again.
        """
        if time.monotonic() >= self._renew_at:
            await self.open()
        commands: list[Command] = []
        trims = self._untrimmed >= (1 if self._is_quiet else TRIM_AFTER)
        if trims:
            ms, seq = _parsed(self._cursor)
            commands.append(("XTRIM", self._key, "MINID", "=", f"{ms}-{seq + 1}"))
        wait: Command = (
            *("XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MS),
            *("STREAMS", self._key, self._cursor),
        )
        try:
            replies = await self._line.call(*commands, wait)
        except DespachoError:
            # The next connection may meet a Redis that lost the stream: look first.
            self._renew_at = 0.0
            raise
        if trims:
            self._untrimmed = 0
        streams = checked(replies[-1])
        self._is_quiet = not streams
        if not streams:
            return []
        entries = streams[0][1]
        self._untrimmed += len(entries)
        self._cursor = entries[-1][0]
        self.oldest_ms, _ = _parsed(entries[0][0])
        return [reply for _, fields in entries if (reply := _decoded(fields)) is not None]

    async def delete(self) -> None:
        """Let workers know at once that nobody reads any more.

        Raises:
            BrokerUnavailable, OutcomeUnknown: they know when its life ends.
        """
        await self._line.call(("DEL", self._key))

    async def aclose(self) -> None:
        """Close the connection."""
        await self._line.close()


def _decoded(fields: Sequence[bytes]) -> Reply | None:
    try:
        return Reply.FromString(fields[1]) if fields[0] == b"reply" else None
    except DecodeError:
        return None  # not written by `complete`; its job, if there is one, is asked after


def _parsed(entry_id: bytes) -> tuple[int, int]:
    ms, _, seq = entry_id.partition(b"-")
    return int(ms), int(seq)
