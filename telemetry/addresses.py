"""Addresses at which a service listens, as its settings say them."""

import errno
import ipaddress
from typing import Annotated, Final

from pydantic import AfterValidator

HIGHEST_PORT: Final = 65535

NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""What is said on a machine without the version of IP that an address is of."""


def host_and_port(address: str) -> str:
    """Return an address that is `host:port`.

    Raises:
        ValueError: it is not. gRPC would take a port that is too high for another one.
    """
    host, _, port = address.rpartition(":")
    is_port = port.isascii() and port.isdigit() and int(port) <= HIGHEST_PORT
    if not (host and is_port):
        raise ValueError(f"must be host:port, the port a number from 0 to {HIGHEST_PORT}")
    try:
        # What a look-up begins with. It raises no OSError.
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"must be host:port, and {host} cannot be a host") from None
    return address


def host_and_port_or_nothing(address: str) -> str:
    """Return an address that is `host:port`, or empty.

    Raises:
        ValueError: it is neither.
    """
    return address and host_and_port(address)


def is_of_this_machine(host: str) -> bool:
    """Say whether other machines cannot reach what listens at this host."""
    if host == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False  # a name, which may stand for anything
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


HostPort = Annotated[str, AfterValidator(host_and_port)]
"""`host:port`."""

OptionalHostPort = Annotated[str, AfterValidator(host_and_port_or_nothing)]
"""`host:port`, or empty for nowhere."""
