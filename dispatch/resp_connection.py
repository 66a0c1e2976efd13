"""One connection to Redis on the event loop: commands out, replies in, in the same order.

redis-py reads the URL, since it knows all that may stand there; from then on it is
not needed. A task, a lock and a time-out for each reply cost more than the reply.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import Any, cast

import hiredis
from redis import exceptions
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import (
    Connection,
    RedisSSLContext,
    SSLConnection,
    UnixDomainSocketConnection,
)

from dispatch.packing import packed
from dispatch.resp_errors import error_of
from dispatch.scripts import Command


class ConnectionBroke(Exception):
    """It is closed; what was sent and not answered may have happened."""


@dataclass(slots=True, eq=False)
class _Exchange:
    """Commands that were sent together, and what was answered so far."""

    awaited: int
    done: "asyncio.Future[list[Any]]"
    give_up_at: float
    replies: list[Any] = field(default_factory=list)


class RespConnection(asyncio.Protocol):
    """A connection that is open, until it breaks for good.

    What is written is not held back while Redis does not read: whoever sends waits for
    replies before sending much more.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader(protocolError=exceptions.InvalidResponse, replyError=error_of)
        self._exchanges: deque[_Exchange] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0
        self._transport: asyncio.Transport | None = None
        self._closed = self._loop.create_future()

    @property
    def is_open(self) -> bool:
        """Whether commands may be sent."""
        return self._transport is not None

    def exchange(
        self, commands: Sequence[Command], timeout_s: float
    ) -> "asyncio.Future[list[Any]]":
        """Send all commands now, without waiting for those sent before.

        Returns:
            What will have their replies, an error that Redis answers in its place, or
            raise `ConnectionBroke`.
        """
        transport = self._transport
        if transport is None:
            raise ConnectionBroke("the connection is closed")
        done = self._loop.create_future()
        give_up_at = self._loop.time() + timeout_s
        self._exchanges.append(_Exchange(len(commands), done, give_up_at))
        # It may run for an exchange that had more time, and was answered.
        if self._timer is None or give_up_at < self._wakes_at:
            self._wake_at(give_up_at)
        transport.writelines(packed(commands))
        return done

    def abort(self) -> None:
        """Break the connection now; nothing more is sent or answered."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._fail("the connection was closed")

    async def close(self) -> None:
        """Close the connection; return when it is."""
        self.abort()
        await self._closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; called by the loop."""
        self._transport = None
        self._fail("the connection broke", exc)
        if not self._closed.done():
            self._closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Hand over replies; called by the loop."""
        self._parser.feed(data)
        try:
            # Nothing but this is ever False: version 2 of the protocol has no booleans.
            while (reply := self._parser.gets()) is not False:
                self._take(reply)
        except (exceptions.InvalidResponse, IndexError):
            # What comes next cannot be told any more.
            self.abort()

    def _take(self, reply: Any) -> None:
        exchange = self._exchanges[0]
        exchange.replies.append(reply)
        if len(exchange.replies) == exchange.awaited:
            self._exchanges.popleft()
            if not exchange.done.done():
                exchange.done.set_result(exchange.replies)

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = when
        self._timer = self._loop.call_at(when, self._look_at_clock)

    def _look_at_clock(self) -> None:
        """Break the connection if the oldest reply is overdue, else look again when it is."""
        # One timer that is late and seldom, instead of one for each exchange.
        self._timer = None
        if not self._exchanges:
            return
        give_up_at = self._exchanges[0].give_up_at
        if give_up_at > self._loop.time():
            self._wake_at(give_up_at)
        else:
            self._fail("the broker was silent for too long")
            self.abort()

    def _fail(self, text: str, cause: Exception | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._exchanges:
            done = self._exchanges.popleft().done
            if not done.done():
                error = ConnectionBroke(text)
                error.__cause__ = cause
                done.set_exception(error)


class RespAddress:
    """Where Redis is, and how to begin there."""

    def __init__(self, url: str) -> None:
        """Read the URL.

        Args:
            url: `redis://`, `rediss://` or `unix://`.
        """
        self._target = cast(
            "Connection | UnixDomainSocketConnection",
            # Version 3 changes the shape of stream replies.
            ConnectionPool.from_url(url, protocol=2).make_connection(),
        )
        self._files: list[tuple[int, int, int]] | None = None

    async def connect(self, timeout_s: float) -> RespConnection:
        """Return a new connection, authenticated and in its database.

        Args:
            timeout_s: how long all of that may take, seconds.

        Raises:
            OSError, RedisError, ConnectionBroke: there is none.
        """
        async with asyncio.timeout(timeout_s):
            connection = await self._open()
            try:
                commands = await self._greeting()
                for reply in await connection.exchange(commands, timeout_s) if commands else ():
                    if isinstance(reply, Exception):
                        raise reply
            except BaseException:
                connection.abort()
                raise
        return connection

    async def _open(self) -> RespConnection:
        loop = asyncio.get_running_loop()
        target = self._target
        if isinstance(target, UnixDomainSocketConnection):
            _, connection = await loop.create_unix_connection(RespConnection, target.path)
        else:
            tls = self._tls(target.ssl_context) if isinstance(target, SSLConnection) else None
            _, connection = await loop.create_connection(
                RespConnection, target.host, target.port, ssl=tls
            )
        return connection

    def _tls(self, made: RedisSSLContext) -> SSLContext:
        """Return what the files say, which redis-py would read only once.

        Not read for each connection: that takes this thread for some 20 ms, and while
        Redis is away there are many attempts a second.
        """
        paths = (made.ca_certs, made.ca_path, made.certfile, made.keyfile)
        found = [Path(path).stat() for path in paths if path]
        files = [(each.st_ino, each.st_size, each.st_mtime_ns) for each in found]
        if files != self._files:
            made.context = None
        tls = made.get()
        self._files = files
        return tls

    async def _greeting(self) -> list[Command]:
        target = self._target
        commands: list[Command] = []
        if target.username or target.password:
            names = (target.username,) if target.username else ()
            commands.append(("AUTH", *names, target.password or ""))
        if target.db:
            commands.append(("SELECT", target.db))
        if target.client_name:
            commands.append(("CLIENT", "SETNAME", target.client_name))
        return commands
