"""Addresses that a server listens on."""

import random
import socket
from contextlib import suppress
from typing import Final

from deploy.errors import StackError

CONNECT_S: Final = 0.5
PORTS: Final = range(20_000, 30_000)
"""What is chosen from: below those that systems give to whoever connects. One of these could be
taken before the server has it; or while it starts again, by a client that tries to reach it and
then reaches itself."""

ANY_HOST: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - read, not bound


def split(address: str) -> tuple[str, int] | None:
    """Return host and port; None: not TCP, or not an address."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or host in {"unix", "unix-abstract"}:
        return None
    return host, int(port)


def with_port(address: str) -> str:
    """Return the address, with a free port where it leaves the choice open (port 0)."""
    parts = split(address)
    if parts is None or parts[1] != 0:
        return address
    return f"{parts[0]}:{free_port()}"


def for_client(address: str) -> str:
    """Return what a client of this machine connects to."""
    parts = split(address)
    if parts is None:
        return address
    return f"{ANY_HOST.get(parts[0], parts[0])}:{parts[1]}"


def is_taken(address: str) -> bool:
    """Return whether another program listens there."""
    parts = split(for_client(address))
    if parts is None:
        return False
    try:
        with socket.create_connection((parts[0].strip("[]"), parts[1]), CONNECT_S):
            return True
    except (OSError, UnicodeError):
        # Nobody there; or a name that only the server can complain about, or that cannot be one.
        return False


def require_free(
    address: str, *, setting: str = "SERVER_ADDRESS", command: str = "make up"
) -> None:
    """Check that a service can listen there.

    Args:
        address: where.
        setting: says where; for the message.
        command: which takes another setting; for the message.

    Raises:
        StackError: another program does.
    """
    if is_taken(address):
        raise StackError(
            f"another program listens on {address}; stop it, or choose another"
            f" address: {setting}={_next_to(address)} {command}"
        )


def _next_to(address: str) -> str:
    parts = split(address)
    return address if parts is None else f"{parts[0] or '127.0.0.1'}:{parts[1] % 65535 + 1}"


def free_port() -> int:
    """Return a TCP port of this machine that is free now.

    Raises:
        StackError: none is.
    """
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise StackError(f"no port of 127.0.0.1 is free from {PORTS.start} on")
