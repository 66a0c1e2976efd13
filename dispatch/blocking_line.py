"""Commands and their replies for threads: each has a connection of its own."""

import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from redis import ConnectionPool, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatch.blocking_connection import BlockingConnection
from dispatch.errors import BrokerUnavailable
from dispatch.scripts import Command, in_full

REPLY_TIMEOUT_S: Final = 1.5
"""With the second between two renewals still shorter than the lease, so that a stalled
broker is noticed before leases look expired."""

ABSENCE_S: Final = 0.5
"""How long Redis must have been out of reach for leases to have suffered."""

IDLE_S: Final = 1.0
"""A connection that was not used for so long is looked at first: Redis may have closed it."""

_BROKEN: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.InvalidResponse,
    OSError,
)
"""What ends a connection, of redis-py and of the system."""


class BlockingLine:
    """A pool of redis-py, whose connections stay with the threads that took them.

    To take one and to give it back, each time looking whether it is still good, costs as
    much as a short command.
    """

    def __init__(self, url: str) -> None:
        """Remember where Redis is; connect on the first call.

        Args:
            url: `redis://`, `rediss://` or `unix://`.
        """
        self._pool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=REPLY_TIMEOUT_S,
            socket_connect_timeout=REPLY_TIMEOUT_S,
            # A Unix socket has none, as both ends are on one machine.
            **({} if url.startswith("unix:") else {"socket_keepalive": True}),
            retry=Retry(NoBackoff(), 0),
        )
        self._kept = threading.local()
        self._reachable_since = float("inf")
        self._away_since: float | None = 0.0

    @property
    def reachable_for_s(self) -> float:
        """For how long Redis has answered without an absence that leases notice, seconds.

        Below 0 if it has not yet.
        """
        return time.monotonic() - self._reachable_since

    def call(self, *commands: Command, timeout_s: float = REPLY_TIMEOUT_S) -> list[Any]:
        """Send commands at once; return their replies, errors among them.

        A script that Redis has forgotten is sent again in full, after what follows it.

        Args:
            commands: what to send.
            timeout_s: how long Redis may take for each reply.

        Raises:
            BrokerUnavailable: they may have been carried out or not.
        """
        begun = time.monotonic()
        try:
            replies = self._exchange(commands, timeout_s)
            forgotten = [
                position
                for position, reply in enumerate(replies)
                if isinstance(reply, exceptions.NoScriptError)
            ]
            if forgotten:
                again = self._exchange([in_full(commands[i]) for i in forgotten], timeout_s)
                for position, reply in zip(forgotten, again, strict=True):
                    replies[position] = reply
        except _BROKEN as error:
            if self._away_since is None:
                self._away_since = begun
            raise BrokerUnavailable(f"the broker cannot be reached: {error}") from error
        self._note_reached()
        return replies

    def close(self) -> None:
        """Close the connections of all threads."""
        self._pool.disconnect()

    def _note_reached(self) -> None:
        now = time.monotonic()
        away_since, self._away_since = self._away_since, None
        # One broken connection is no absence: others were renewed meanwhile.
        if away_since is not None and now - away_since > ABSENCE_S:
            self._reachable_since = now

    def _exchange(self, commands: Sequence[Command], timeout_s: float) -> list[Any]:
        connection = self._connection()
        try:
            return connection.exchange(commands, timeout_s)
        except BaseException:
            connection.inner.disconnect()
            self._give_back(connection)
            raise

    def _connection(self) -> BlockingConnection:
        connection: BlockingConnection | None = getattr(self._kept, "connection", None)
        now = time.monotonic()
        if connection is not None and now - self._kept.used_at > IDLE_S:
            self._give_back(connection)
            connection = None
        if connection is None:
            inner = self._pool.get_connection()
            try:
                connection = BlockingConnection(inner)
            except exceptions.ConnectionError:
                self._pool.release(inner)
                raise
            self._kept.connection = connection
        self._kept.used_at = now
        return connection

    def _give_back(self, connection: BlockingConnection) -> None:
        self._kept.connection = None
        self._pool.release(connection.inner)


def says(reply: Any, word: str) -> bool:
    """Return whether a reply is an error with this word."""
    return isinstance(reply, exceptions.ResponseError) and word in str(reply)


def raise_first(replies: Sequence[Any]) -> None:
    """Raise the first error among the replies, if there is one.

    Raises:
        BrokerUnavailable: Redis refused a command.
    """
    for reply in replies:
        if isinstance(reply, exceptions.ResponseError):
            raise BrokerUnavailable(f"the broker refused: {reply}") from reply
