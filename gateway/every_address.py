"""The sockets of all addresses that a name stands for, as one from which cheroot accepts.

cheroot itself is content with the first address that is free. A second gateway at the same
`localhost` would then listen at the other one, and callers would come to this or to that.
"""

import errno
import math
import os
import selectors
import socket
from contextlib import ExitStack, closing
from typing import Any, Final

from telemetry.addresses import NOT_HERE

USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)
"""Linux has it, macOS has not."""

MAX_UNREAD_MS: Final = (1 << 31) - 1


class Listeners:
    """Some sockets that listen; what cheroot does with its one.

    Args:
        unread_s: how long what was sent may wait for a sign that it arrived, seconds.
    """

    def __init__(self, unread_s: float) -> None:
        self._unread_ms = min(math.ceil(unread_s * 1000), MAX_UNREAD_MS)
        self._sockets: list[socket.socket] = []
        # Can itself be waited for: until one of them is ready.
        self._ready = selectors.DefaultSelector()

    def add(self, listener: socket.socket) -> None:
        """Accept from one more, and close it in the end."""
        self._sockets.append(listener)
        # Who was there may be gone when we accept.
        listener.settimeout(0)
        # Connections inherit it, and what follows.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if USER_TIMEOUT is not None:
            # Who is gone without a word takes what little we write for minutes, as it seems to us:
            # it goes into the buffer of the socket.
            listener.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, self._unread_ms)
        self._ready.register(listener, selectors.EVENT_READ, listener)

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection and its peer.

        Raises:
            BlockingIOError: there is none.
        """
        ready = {key.data for key, _ in self._ready.select(0)}
        for listener in self._sockets:
            if listener in ready:
                # Behind the others now: one where callers never end must not keep them waiting.
                self._sockets.remove(listener)
                self._sockets.append(listener)
                return listener.accept()
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def listen(self, backlog: int) -> None:
        """Let so many connections wait."""
        for listener in self._sockets:
            listener.listen(backlog)

    def settimeout(self, timeout: float) -> None:
        """Leave it as it is: `accept` waits for nobody."""

    def fileno(self) -> int:
        """Return what is ready when there is a connection."""
        return self._ready.fileno()

    def getsockname(self) -> Any:
        """Return one of the addresses; before any connection the first."""
        return self._sockets[0].getsockname()

    def close(self) -> None:
        """Listen no more."""
        self._ready.close()
        for listener in self._sockets:
            listener.close()


def listening(host: str, port: int, unread_s: float) -> Listeners:
    """Listen at all addresses of a name.

    Args:
        host: an IP address, or a name.
        port: 0: any free one, the same at all of them.
        unread_s: as in `Listeners`.

    Raises:
        OSError: one of the addresses is in use, or none is ours.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # Each once: a name may have the same address in several lines of a file.
    addresses = dict.fromkeys((family, address) for family, *_, address in found)
    not_here = []
    with ExitStack() as unless_all_is_well:
        listeners = unless_all_is_well.enter_context(closing(Listeners(unread_s)))
        for family, (address, _, *rest) in addresses:
            try:
                listener = _listener(family, (address, port, *rest))
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
                not_here.append(error)
            else:
                listeners.add(listener)
                port = listener.getsockname()[1]
        if len(not_here) == len(addresses):
            raise not_here[0]
        unless_all_is_well.pop_all()
    return listeners


def _listener(family: int, address: tuple[Any, ...]) -> socket.socket:
    # `::` is to be every address, those of IPv4 too.
    is_dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    return socket.create_server(address, family=family, dualstack_ipv6=is_dual)
