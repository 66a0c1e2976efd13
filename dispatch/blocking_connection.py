"""One connection to Redis in a thread: commands out, replies in, in the same order.

redis-py reads the URL, connects and introduces itself. What it does around each command and each
reply afterwards, such as to set the time-out of the socket before and after, takes longer than to
write and to read them, and a worker of a quick model does little else.
"""

import socket
from collections.abc import Sequence
from typing import Any, Final

import hiredis
from redis import Connection, exceptions

from dispatch.packing import packed
from dispatch.resp_errors import error_of
from dispatch.scripts import Command

BUFFER_BYTES: Final = 128 * 1024
"""Most that is read at once: more than an image, mostly."""


class BlockingConnection:
    """A connection that is open, for one thread.

    Args:
        inner: that redis-py has connected. Nobody else may use it meanwhile.

    Raises:
        ConnectionError: of redis-py: it is closed already.
    """

    def __init__(self, inner: Connection) -> None:
        self.inner = inner
        # There is no public name for it.
        connected: socket.socket | None = inner._sock  # noqa: SLF001
        if connected is None:
            raise exceptions.ConnectionError("another thread has closed the connection")
        self._socket = connected
        self._reader = hiredis.Reader(protocolError=exceptions.InvalidResponse, replyError=error_of)
        self._buffer = bytearray(BUFFER_BYTES)
        self._timeout_s = 0.0

    def exchange(self, commands: Sequence[Command], timeout_s: float) -> list[Any]:
        """Send all commands; return their replies, an error that Redis answers in its place.

        After anything that this raises, the connection is of no use any more.

        Args:
            commands: what to send.
            timeout_s: how long Redis may take for each reply.

        Raises:
            OSError, RedisError: they may have been carried out or not.
        """
        if timeout_s != self._timeout_s:
            self._timeout_s = timeout_s
            self._socket.settimeout(timeout_s)
        self._socket.sendall(b"".join(packed(commands)))
        replies: list[Any] = []
        while len(replies) < len(commands):
            # Nothing but this is ever False: version 2 of the protocol has no booleans.
            if (reply := self._reader.gets()) is False:
                self._read()
            elif isinstance(reply, exceptions.ReadOnlyError):
                # The server was demoted: the next connection may find its successor.
                raise exceptions.ConnectionError("the broker is a replica")
            elif isinstance(reply, exceptions.ConnectionError):
                raise reply  # it is loading, or wants to be told again who we are
            else:
                replies.append(reply)
        return replies

    def _read(self) -> None:
        size = self._socket.recv_into(self._buffer)
        if size == 0:
            raise exceptions.ConnectionError("the broker closed the connection")
        self._reader.feed(self._buffer, 0, size)  # type: ignore[arg-type] # takes any buffer
