"""One connection to Redis for long-lived asyncio tasks, with honest errors.

redis-py's own client resends what failed and hides whether a command was sent.
A caller of ours must know: what was never sent may be refused at once, what was
sent may have happened.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from redis import exceptions
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from dispatch.errors import BrokerUnavailable, OutcomeUnknown
from dispatch.scripts import Command, in_full

CONNECT_TIMEOUT_S = 0.9
"""A broker that does not accept a connection by then is away: callers hear within 1 s."""


class Line:
    """Commands and replies in order, over one connection that is reopened when it breaks.

    Cancelling a call breaks the connection, so only long-lived tasks should make
    one; calls of several tasks take turns.
    """

    def __init__(self, url: str, *, reply_timeout_s: float) -> None:
        """Remember where Redis is; connect on the first call.

        Args:
            url: `redis://`, `rediss://` or `unix://`.
            reply_timeout_s: how long a reply may take before the line counts as
                broken, seconds; longer than any blocking command on it.
        """
        self._pool = ConnectionPool.from_url(
            url,
            # Version 3 changes the shape of stream replies.
            protocol=2,
            socket_timeout=reply_timeout_s,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
        )
        self._connection = cast("AbstractConnection", self._pool.make_connection())
        self._reply_timeout_s = reply_timeout_s
        self._turn = asyncio.Lock()

    async def call(self, *commands: Command, timeout_s: float | None = None) -> list[Any]:
        """Send all commands at once; return their replies.

        An error that Redis answers to one command is returned in its place.

        Args:
            commands: what to send.
            timeout_s: how long sending, and each reply, may take this time, seconds.

        Raises:
            BrokerUnavailable: nothing was done: no connection, or Redis is loading.
            OutcomeUnknown: the connection broke after the commands were sent.
        """
        async with self._turn:
            self._connection.socket_timeout = timeout_s or self._reply_timeout_s
            replies = await self._exchange(commands)
            forgotten = [
                position
                for position, reply in enumerate(replies)
                if isinstance(reply, exceptions.NoScriptError)
            ]
            if forgotten:
                again = await self._exchange([in_full(commands[i]) for i in forgotten])
                for position, reply in zip(forgotten, again, strict=True):
                    replies[position] = reply
            return replies

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        connection = self._connection
        if not connection.is_connected:
            await self._open()
        try:
            await connection.send_packed_command(
                connection.pack_commands(commands), check_health=False
            )
            replies: list[Any] = []
            for _ in commands:
                try:
                    # What arrives is awaited by this task alone, and a time-out breaks the line.
                    replies.append(await connection.read_response(disconnect_on_error=True))
                except exceptions.ReadOnlyError as error:
                    # The server was demoted: the next connection may find its successor.
                    raise exceptions.ConnectionError("the broker is a replica") from error
                except exceptions.ResponseError as error:
                    replies.append(error)
        except exceptions.BusyLoadingError as error:
            await self._break()
            raise BrokerUnavailable("the broker is starting") from error
        except (exceptions.RedisError, OSError) as error:
            await self._break()
            raise OutcomeUnknown("the connection to the broker broke") from error
        except BaseException:
            # Cancelled between a command and its reply: the next reader would get this one's.
            await self._break()
            raise
        return replies

    async def _open(self) -> None:
        try:
            await self._connection.connect()
        except (exceptions.RedisError, OSError) as error:
            raise BrokerUnavailable("the broker cannot be reached") from error

    async def _break(self) -> None:
        await self._connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.disconnect()
        await self._pool.aclose()
