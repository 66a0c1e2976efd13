"""What a request may know of the connection it came over."""

import select
import socket
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from client.messages import Call, ResponseT
from gateway.http_connection import PacedSocket
from gateway.problems import Refused

ENVIRON_KEY: Final = "despacho.connection"
"""Where the server leaves it for the application."""

LOOK_EVERY_S: Final = 0.25
"""How often a request that waits looks whether its caller is still there."""

_NOTHING_WILL_COME: Final = getattr(select, "POLLRDHUP", 0)
"""What Linux says of a caller who has closed, also while some of what came is not read yet."""

STOPPING_RETRY_S: Final = 1.0
"""When to come back to another gateway, or to the next one at this address, seconds."""


class CallerGone(Exception):
    """The caller has closed the connection: whatever is answered, nobody reads it."""


class Connection(Protocol):
    """The connection of one request."""

    @property
    def arrived_s(self) -> float:
        """When the request began to arrive, seconds of the monotonic clock."""

    @property
    def is_cut(self) -> bool:
        """Whether the gateway stops and reads no more of it."""

    def is_gone(self) -> bool:
        """Say whether the caller has closed it."""

    def listen_until(self, ends_s: float) -> None:
        """Read no longer than that, seconds of the monotonic clock."""


class SocketConnection:
    """One that is looked at through its socket."""

    def __init__(self, sock: PacedSocket, arrived_s: float) -> None:
        self._socket = sock
        self.arrived_s = arrived_s

    @property
    def is_cut(self) -> bool:
        """Whether the gateway stops and reads no more of it."""
        return self._socket.is_cut

    def listen_until(self, ends_s: float) -> None:
        """Read no longer than that."""
        self._socket.ends_s = ends_s

    def is_gone(self) -> bool:
        """Say whether the caller has closed it; one who sends the next request has not.

        One that closed only its sending half looks the same: the rest would show when the
        answer is written, and until then somebody would compute for nobody.
        """
        try:
            # Looked at first: a socket that has a timeout waits for it, whatever the flags.
            poll = select.poll()
            poll.register(self._socket.fileno(), select.POLLIN | _NOTHING_WILL_COME)
            if not (found := poll.poll(0)):
                return False
            [(_, events)] = found
            return bool(events & _NOTHING_WILL_COME) or not self._socket.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True


class UnknownConnection:
    """One that cannot be looked at, as under another server than ours."""

    is_cut = False

    def __init__(self) -> None:
        self.arrived_s = time.monotonic()

    def is_gone(self) -> bool:
        """Say no."""
        return False

    def listen_until(self, ends_s: float) -> None:
        """Leave that to the other server."""


def connection_of(environ: Mapping[str, Any]) -> Connection:
    """Return the connection of the request that has this WSGI environment."""
    return environ.get(ENVIRON_KEY) or UnknownConnection()


def answer(call: Call[ResponseT], connection: Connection) -> ResponseT:
    """Return the answer of the front-end; give the call up if the caller does.

    Raises:
        CallerGone: the caller has.
        Refused: the gateway stops.
        DespachoError: one of its subclasses.
    """
    while not call.wait(0):
        try:
            look(connection)
        except (CallerGone, Refused):
            call.cancel()
            raise
        call.wait(LOOK_EVERY_S)
    return call.result()


def rest(pause_s: float, connection: Connection) -> None:
    """Do nothing for a while.

    Raises:
        CallerGone: the caller has.
        Refused: the gateway stops.
    """
    ends_s = time.monotonic() + pause_s
    while (left_s := ends_s - time.monotonic()) > 0:
        look(connection)
        time.sleep(min(left_s, LOOK_EVERY_S))


def look(connection: Connection) -> None:
    """Look whether there is any use in an answer.

    Raises:
        CallerGone: the caller has.
        Refused: the gateway stops.
    """
    # Looked at first: where reading was cut off, the caller seems to have gone.
    is_gone = connection.is_gone()
    if connection.is_cut:
        raise stopping()
    if is_gone:
        raise CallerGone


def stopping() -> Refused:
    """Return what a caller is told whose request a gateway that stops has waited for in vain."""
    return Refused(
        503,
        "the gateway is stopping, and the request did not end before",
        reason="DRAINING",
        retry_after_s=STOPPING_RETRY_S,
    )
