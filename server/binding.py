"""Makes a gRPC server listen at an address, if nobody else does."""

import socket
from typing import Final

import grpc

UNIX: Final = "unix:"
"""Begins the address of a socket in the file system."""


class CannotListen(Exception):
    """The address is in use, or not ours."""


def bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
    """Listen at an address.

    Args:
        server: that is not started yet.
        address: `host:port` (port 0: any free one) or `unix:/path`.
        credentials: what encrypts; None: nothing does.

    Returns:
        The address with the real port.

    Raises:
        CannotListen: the address is in use, or not ours.
    """
    try:
        if address.startswith(UNIX):
            _check_unused(address.removeprefix(UNIX))
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except (OSError, RuntimeError) as error:
        raise CannotListen(
            f"cannot listen on {address}: the address is in use or not available"
        ) from error
    if address.startswith(UNIX):
        return address
    return f"{address.rpartition(':')[0]}:{port}"


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
        try:
            caller.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return
    raise OSError(f"somebody listens at {path}")
