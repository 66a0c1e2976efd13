"""Makes a gRPC server listen at an address, if nobody else does."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import grpc

from server.addresses import UNIX
from telemetry.addresses import NOT_HERE

IN_FILES: Final = "unix:"
"""Begins the address of a socket in the file system; one with only a name Linux gives to one."""

ACCEPT_S: Final = 1.0
"""How long a server that listens at a path of the file system has, to accept a connection."""


class CannotListen(Exception):
    """The address is in use, or not ours."""


def bind(
    server: grpc.aio.Server,
    address: str,
    credentials: grpc.ServerCredentials | None,
    *,
    is_shared: bool,
) -> str:
    """Listen at an address.

    Args:
        server: that is not started yet.
        address: `host:port` (port 0: any free one) or `unix:/path`.
        credentials: what encrypts; None: nothing does.
        is_shared: whether the parent of this process holds the address for several.

    Returns:
        The address with the real port.

    Raises:
        CannotListen: the address is in use, or not ours.
    """
    has_port = not address.startswith(UNIX)
    try:
        if address.startswith(IN_FILES):
            _check_unused(address.removeprefix(IN_FILES))
        elif has_port and not is_shared:
            # A name may stand for several addresses, and gRPC is content with one that is free.
            with reserved(address):
                pass
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except (OSError, RuntimeError) as error:
        raise CannotListen(
            f"cannot listen on {address}: the address is in use or not available"
        ) from error
    return f"{address.rpartition(':')[0]}:{port}" if has_port else address


@contextmanager
def reserved(address: str) -> Iterator[str]:
    """Keep an address for processes that share it, while inside.

    Sockets that share a port do not tell when somebody else has it. So it is first taken
    by one that does not, and only then opened for the others. It never listens, so it gets
    no connections.

    Args:
        address: `host:port`; port 0: any free one. All that its name stands for is kept.

    Yields:
        The address with the real port.

    Raises:
        CannotListen: the address is in use, or not ours.
    """
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        number = int(port)
        try:
            # Each once: a name may have the same address in several lines of a file.
            for family, (found, _, *rest) in dict.fromkeys(
                (family, where)
                for family, *_, where in socket.getaddrinfo(
                    host.strip("[]"), number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )
            ):
                with _passing_over_what_is_not_here():
                    holder = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                    number = _hold(holder, (found, number, *rest))
        except OSError as error:
            raise CannotListen(
                f"cannot listen on {address}: the address is in use or not available"
            ) from error
        if number == 0:
            raise CannotListen(f"cannot listen on {address}: the address is not available")
        yield f"{host}:{number}"


@contextmanager
def _passing_over_what_is_not_here() -> Iterator[None]:
    """Go on where the machine has no such addresses."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise


def _hold(holder: socket.socket, address: tuple[Any, ...]) -> int:
    """Take one address; return its port."""
    # Else the connections of a server that has just ended would keep the address for a minute.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(address)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return int(holder.getsockname()[1])


def _check_unused(path: str) -> None:
    """Make sure that nobody listens at a path; the socket of one that was killed may be there.

    gRPC takes away any socket that is there before it makes its own, and when it ends. Whoever
    listened to it would live on and never be reached again.

    Raises:
        OSError: somebody does, or nobody can.
    """
    # The scheme may have a host, which is empty, and so two more slashes.
    path = path.removeprefix("//")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        # Whoever does not even accept has the path all the same.
        caller.settimeout(ACCEPT_S)
        try:
            caller.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return
    raise OSError(f"somebody listens at {path}")
