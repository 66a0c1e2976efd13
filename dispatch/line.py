"""A connection to Redis for long-lived asyncio tasks, reopened when it breaks, with honest errors.

redis-py's own client resends what failed and hides whether a command was sent.
A caller of ours must know: what was never sent may be refused at once, what was
sent may have happened.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis import exceptions

from dispatch.errors import BrokerUnavailable, OutcomeUnknown
from dispatch.resp_connection import ConnectionBroke, RespAddress, RespConnection
from dispatch.scripts import Command, in_full

CONNECT_TIMEOUT_S: Final = 0.9
"""A broker that does not accept a connection by then is away: callers hear within 1 s."""

REPLY_TIMEOUT_S: Final = 0.9
"""A broker that is silent for this long is away: callers hear within 1 s."""

SLOWEST_BYTES_PER_S: Final = 8 * 1024 * 1024
"""A link to the broker that is slower than this counts as broken."""

_FOR_THE_NEXT: Final = (
    exceptions.ReadOnlyError,
    exceptions.BusyLoadingError,
    exceptions.AuthenticationError,
)
"""Errors that say nothing of a command, but that another connection is needed."""


class Line:
    """Commands and replies in order, over one connection.

    A call does not wait for those before it. Cancelling one breaks the connection, for
    all of them, so only long-lived tasks should make one.
    """

    def __init__(self, url: str, *, reply_timeout_s: float) -> None:
        """Remember where Redis is; connect on the first call.

        Args:
            url: `redis://`, `rediss://` or `unix://`.
            reply_timeout_s: how long the replies to a call may take before the line
                counts as broken, seconds; longer than any blocking command on it.
        """
        self._address = RespAddress(url)
        self._reply_timeout_s = reply_timeout_s
        self._connection: RespConnection | None = None
        self._opening = asyncio.Lock()

    async def call(self, *commands: Command, timeout_s: float | None = None) -> list[Any]:
        """Send all commands at once; return their replies.

        An error that Redis answers to one command is returned in its place; see `checked`.

        Args:
            commands: what to send.
            timeout_s: how long the replies may take this time, seconds.

        Raises:
            BrokerUnavailable: nothing was done: no connection, or Redis is loading.
            OutcomeUnknown: the connection broke after the commands were sent.
        """
        limit_s = timeout_s or self._reply_timeout_s
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = await self._open()
        replies = await self._exchange(connection, commands, limit_s)
        forgotten = [
            position
            for position, reply in enumerate(replies)
            if isinstance(reply, exceptions.NoScriptError)
        ]
        if forgotten:
            again = await self._exchange(
                connection, [in_full(commands[i]) for i in forgotten], limit_s
            )
            for position, reply in zip(forgotten, again, strict=True):
                replies[position] = reply
        return replies

    async def _exchange(
        self, connection: RespConnection, commands: Sequence[Command], timeout_s: float
    ) -> list[Any]:
        try:
            replies = await connection.exchange(commands, timeout_s)
        except ConnectionBroke as error:
            raise OutcomeUnknown("the connection to the broker broke") from error
        except BaseException:
            # Nobody would hear what is answered now.
            connection.abort()
            raise
        if all(isinstance(reply, exceptions.BusyLoadingError) for reply in replies):
            connection.abort()
            raise BrokerUnavailable("the broker is starting") from replies[0]
        for reply in replies:
            # It was demoted, or follows another: the next connection may find its successor. Or
            # something between us connected to it anew: the next one introduces itself again.
            if isinstance(reply, _FOR_THE_NEXT):
                connection.abort()
                raise OutcomeUnknown(
                    "the broker is starting, is a replica, or does not know us"
                ) from reply
        return replies

    async def _open(self) -> RespConnection:
        async with self._opening:
            if self._connection is None or not self._connection.is_open:
                try:
                    self._connection = await self._address.connect(CONNECT_TIMEOUT_S)
                except (exceptions.RedisError, ConnectionBroke, OSError) as error:
                    raise BrokerUnavailable("the broker cannot be reached") from error
            return self._connection

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()


def timeout_of(size_bytes: int) -> float:
    """Return how long the replies to commands with so many bytes of images may take, seconds."""
    return REPLY_TIMEOUT_S + size_bytes / SLOWEST_BYTES_PER_S


def checked(reply: Any) -> Any:
    """Return a reply of `Line.call`.

    Raises:
        BrokerUnavailable: it is an error that Redis answered to the command.
    """
    if isinstance(reply, exceptions.ResponseError):
        raise BrokerUnavailable("the broker refused a command") from reply
    return reply
