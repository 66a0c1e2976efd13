"""Where a server can listen, and which addresses only processes of this machine can reach."""

from typing import Final

from telemetry.addresses import host_and_port, is_of_this_machine

UNIX: Final = ("unix:", "unix-abstract:")
"""Begin addresses that have no port: a socket in the file system, or one with only a name."""


def listening(address: str) -> str:
    """Return an address at which calls can be served.

    Raises:
        ValueError: it is none.
    """
    return address if address.startswith(UNIX) else host_and_port(address)


def is_private(address: str) -> bool:
    """Say whether other machines cannot reach what listens at an address of gRPC."""
    return address.startswith(UNIX) or is_of_this_machine(address.rpartition(":")[0].strip("[]"))
