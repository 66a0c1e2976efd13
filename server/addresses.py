"""Which addresses only processes of this machine can reach."""

import ipaddress


def is_private(address: str) -> bool:
    """Say whether other machines cannot reach what listens at an address of gRPC."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False  # a name, which may stand for anything
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
