"""An API key that goes along with each call, and to nobody who should not see it."""

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

Metadata = Sequence[tuple[str, str | bytes]]

_KEY: Final = re.compile(r"[\x21-\x7e]+")


class InsecureKey(ValueError):
    """Others could read the key on its way."""


def metadata_of(api_key: str) -> Metadata:
    """Return what goes with each call.

    Raises:
        ValueError: it cannot be a key. gRPC would say so, too, and quote it.
    """
    if not _KEY.fullmatch(api_key):
        raise ValueError("an API key has no spaces, line ends or letters outside of ASCII")
    return (("authorization", f"Bearer {api_key}"),)


def check_confidential(target: str) -> None:
    """Check that what is sent unencrypted to `target` stays on this machine.

    Raises:
        InsecureKey: it may not.
    """
    if not stays_here(target):
        raise InsecureKey(
            f"an API key would go to {target} unencrypted: give `credentials`, or"
            " `allow_insecure_key=True` if the network is safe"
        )


def stays_here(target: str) -> bool:
    """Say whether all addresses of a gRPC target are of this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in ("ipv4:", "ipv6:"):
        if target.startswith(scheme):
            return all(map(_is_loopback, target.removeprefix(scheme).split(",")))
    if target.startswith("dns:"):
        # With or without the name server to ask: `dns:name`, `dns://server/name`.
        target = target.removeprefix("dns:").rpartition("/")[2]
    return _is_loopback(target)


def _is_loopback(address: str) -> bool:
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        host = address.partition(":")[0]
    else:
        host = address
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
