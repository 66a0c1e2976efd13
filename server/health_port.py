"""A second port, on which health is told and nothing else.

Kubernetes and most load balancers cannot check a port that wants TLS or the
certificate of a caller. Here they can, whatever the port of the calls wants.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from server.accepting_server import accepting_server
from server.binding import bind
from server.gate import Gate
from server.health import HealthService
from server.interceptor import CallInterceptor

log = structlog.get_logger(__name__)

MAX_MESSAGE: Final = ("grpc.max_receive_message_length", 4096)
"""A message there has nothing but a name."""

LAST_BYTES_S: Final = 0.5
"""How long answers may take that are on their way when it closes, seconds."""


@asynccontextmanager
async def health_port(
    address: str,
    service: HealthService,
    *,
    options: Sequence[tuple[str, Any]],
    is_shared: bool,
) -> AsyncIterator[None]:
    """Tell the health of the server while inside.

    Args:
        address: where; empty: nowhere.
        service: what is told.
        options: those of the port of the calls, but for the size of messages.
        is_shared: whether the parent of this process holds the address for several.

    Raises:
        CannotListen: the address is in use, or not ours.
    """
    if not address:
        yield
        return

    chosen = [*dict([*options, MAX_MESSAGE]).items()]
    server = accepting_server((), [CallInterceptor(Gate())], options=chosen)
    add_HealthServicer_to_server(service, server)
    bound = bind(server, address, None, is_shared=is_shared)
    await server.start()
    log.info("health served", address=bound)
    try:
        yield
    finally:
        await server.stop(LAST_BYTES_S)
