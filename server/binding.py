"""Makes a gRPC server listen at an address."""

import grpc


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
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise CannotListen(
            f"cannot listen on {address}: the address is in use or not available"
        ) from error
    if address.startswith("unix:"):
        return address
    return f"{address.rpartition(':')[0]}:{port}"
