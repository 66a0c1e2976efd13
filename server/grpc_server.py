"""The gRPC server: its options, what is served on its port, how it starts and how it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from google.longrunning.operations_pb2_grpc import add_OperationsServicer_to_server
from grpc_channelz.v1 import channelz
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from dispatch.errors import DespachoError
from inference.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from prediction.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from prediction.v1.prediction_pb2_grpc import add_PredictionServiceServicer_to_server
from server import health
from server.accepting_server import accepting_server
from server.addresses import is_private
from server.admin import Admin
from server.admin_service import AdminService
from server.api_keys import ApiKeys
from server.binding import bind
from server.gate import Gate
from server.guard import Guard
from server.health_port import health_port
from server.inference_service import InferenceService
from server.interceptor import CallInterceptor
from server.operations_service import OperationsService
from server.ports import Fleet, Operations, Relay, Stats
from server.service import PredictionService
from server.settings import MIB, ServerSettings
from server.tls import Certificates

log = structlog.get_logger(__name__)

# Above the image limit, so that an image that is a little too large is refused by
# us, with a reason. gRPC itself refuses a larger message before it is in memory,
# with RESOURCE_EXHAUSTED and no reason.
MESSAGE_SLACK_BYTES: Final = MIB
"""What a message may have beside the largest image, bytes."""

CHANNELZ: Final = "grpc.channelz.v1.Channelz"

PREDICT: Final = "/prediction.v1.PredictionService/Predict"

BUSY: Final = frozenset({PREDICT, "/inference.GRPCInferenceService/ModelInfer"})
"""Methods that are called for each image."""

PENDING_CALLS: Final = 20_000
"""Calls that may wait to be picked up, over all connections."""

# Long enough for load balancers to notice, short enough that a caller whose
# connection is still open, and who therefore comes back to this server, is soon
# sent to another one.
DRAIN_NOTICE_S: Final = 1.0
"""How long connections stay open while new calls are refused, seconds."""

LAST_BYTES_S: Final = 0.5
"""How long what is left (reflection, last bytes) may take after the last call, seconds."""

# Not an algorithm: gRPC would use it for callers, too, that cannot read it. At a level it
# chooses from what a caller announces: at the lowest the first, at the highest the last.
COMPRESSION_LEVEL: Final = {"none": 0, "gzip": 1, "deflate": 3}
"""By the word in the settings."""

KEEPALIVE_S: Final = 60.0
"""How often a silent connection is tested, seconds."""

KEEPALIVE_TIMEOUT_S: Final = 20.0
"""How long such a test may take until the connection counts as broken, seconds."""

MIN_PING_INTERVAL_S: Final = 5.0
"""A client that pings more often than this is sent away at the third time, seconds."""

MOST_MS: Final = 2**31 - 1
"""The largest number that an option of gRPC can have; for most times it means no limit."""


def options(settings: ServerSettings) -> list[tuple[str, Any]]:
    """Return the options of the server.

    `grpc.http2.min_ping_interval_without_data_ms` is what C calls
    MIN_RECV_PING_INTERVAL: a client that pings more often is disconnected.
    """
    return [
        # Two servers would silently share the port, and each get some of the calls: only
        # processes of one parent may, which has made sure that nobody else has it.
        ("grpc.so_reuseport", int(is_shared(settings))),
        ("grpc.max_receive_message_length", settings.max_image_bytes + MESSAGE_SLACK_BYTES),
        # What we send is ours: the labels of a model, a vector of scores.
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        # Between the two gRPC refuses some at random.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.server_handshake_timeout_ms", _ms(settings.handshake_timeout_s)),
        ("grpc.max_connection_idle_ms", _ms(settings.max_connection_idle_s)),
        # Calls that arrived and were not picked up yet. Above the soft limit (1,000 by
        # default) gRPC drops some at random with a bare CANCELLED; ours get a reason.
        ("grpc.server.max_pending_requests", PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", PENDING_CALLS),
        # Finds callers that vanished without a word, and frees what they asked for.
        ("grpc.keepalive_time_ms", _ms(KEEPALIVE_S)),
        ("grpc.keepalive_timeout_ms", _ms(KEEPALIVE_TIMEOUT_S)),
        # The one that gRPC really waits for, a minute unless it is told.
        ("grpc.http2.ping_timeout_ms", _ms(KEEPALIVE_TIMEOUT_S)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(MIN_PING_INTERVAL_S)),
        # Makes old connections move to new servers. The grace is longer than any call but a
        # stream, which is then cut: callers are told so in the contract.
        ("grpc.max_connection_age_ms", _ms(settings.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", _ms(settings.max_deadline_s + 1)),
        # Counters of every connection and call; gRPC says they cost little, not nothing.
        ("grpc.enable_channelz", int(settings.channelz)),
    ]


def _ms(seconds: float) -> int:
    """Return what gRPC takes: whole milliseconds, 25 days at most."""
    return min(round(seconds * 1000), MOST_MS)


def is_shared(settings: ServerSettings) -> bool:
    """Say whether this process is one of several at the same address."""
    return settings.processes > 1


@asynccontextmanager
async def grpc_server(
    settings: ServerSettings,
    *,
    relay: Relay,
    operations: Operations,
    admin: Admin,
    stats: Stats,
    fleet: Fleet,
    drain_notice_s: float = DRAIN_NOTICE_S,
) -> AsyncIterator[str]:
    """Serve while inside; on the way out, let calls end and refuse new ones.

    Args:
        settings: where to listen, and the limits.
        relay: where images go that are waited for.
        operations: where images go that are fetched later.
        admin: what an operator may do.
        stats: what an operator may watch.
        fleet: which models there are.
        drain_notice_s: see `DRAIN_NOTICE_S`.

    Yields:
        The address it listens on, with the real port.

    Raises:
        CannotListen: the address is in use, or not ours.
        BadCertificate, BadKeysFile: they cannot be used.
    """
    gate = Gate()

    def flood(method: str) -> DespachoError | None:
        return relay.flood() if method == PREDICT else None

    credentials = _credentials(settings)
    keys = _api_keys(settings)
    interceptors = [*guards(settings, keys, gate), CallInterceptor(gate, flood=flood)]
    predictions = PredictionService(
        settings, relay=relay, operations=operations, fleet=fleet, gate=gate
    )
    long_running = OperationsService(settings, operations=operations, fleet=fleet, gate=gate)
    administration = AdminService(settings, admin=admin, stats=stats, fleet=fleet, gate=gate)
    inference = InferenceService(settings, relay=relay, fleet=fleet, gate=gate)
    health_service = health.HealthService(fleet)

    server = accepting_server(
        BUSY,
        interceptors,
        options=[
            *options(settings),
            ("grpc.default_compression_level", COMPRESSION_LEVEL[settings.response_compression]),
        ],
    )
    add_PredictionServiceServicer_to_server(predictions, server)
    add_OperationsServicer_to_server(long_running, server)
    add_AdminServiceServicer_to_server(administration, server)
    add_GRPCInferenceServiceServicer_to_server(inference, server)
    add_HealthServicer_to_server(health_service, server)
    if settings.channelz:
        channelz.add_channelz_servicer(server)
    reflection.enable_server_reflection(
        (
            *health.SERVICES,
            health.ADMIN_SERVICE,
            "grpc.health.v1.Health",
            reflection.SERVICE_NAME,
            *((CHANNELZ,) if settings.channelz else ()),
        ),
        server,
    )

    async with (
        keys or nullcontext(),
        health_service,
        # Told to the last: open longer than the port of the calls.
        health_port(
            settings.health_address,
            health_service,
            options=options(settings),
            is_shared=is_shared(settings),
        ),
    ):
        address = bind(server, settings.address, credentials, is_shared=is_shared(settings))
        await server.start()
        try:
            yield address
        finally:
            health_service.drain()
            gate.close()
            await _stop(
                server,
                gate,
                health_service,
                relay,
                notice_s=min(drain_notice_s, settings.drain_s),
                grace_s=settings.drain_s,
            )


def guards(
    settings: ServerSettings, keys: ApiKeys | None, gate: Gate
) -> list[grpc.aio.ServerInterceptor]:
    """Return what tells callers apart; nothing if they are all the same."""
    return [Guard(keys, gate)] if keys is not None or settings.tls_client_ca_file else []


def _api_keys(settings: ServerSettings) -> ApiKeys | None:
    if not settings.api_keys_file:
        return None
    if not settings.tls_cert_file and not is_private(settings.address):
        log.warning("API keys are not encrypted on their way", address=settings.address)
    return ApiKeys(Path(settings.api_keys_file))


def _credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    if not settings.tls_cert_file:
        return None
    client_ca = settings.tls_client_ca_file
    return Certificates(
        Path(settings.tls_cert_file),
        Path(settings.tls_key_file),
        Path(client_ca) if client_ca else None,
    ).credentials()


async def _stop(
    server: grpc.aio.Server,
    gate: Gate,
    health_service: health.HealthService,
    relay: Relay,
    *,
    notice_s: float,
    grace_s: float,
) -> None:
    """Stop when the last call has ended, at the latest after `grace_s`."""
    empty = asyncio.create_task(gate.empty())
    await asyncio.wait([empty], timeout=notice_s)
    # From here on clients are told to go elsewhere and none can connect.
    stop = asyncio.create_task(server.stop(grace_s - notice_s))
    health_service.close()
    rest_s = grace_s - notice_s
    patience_s = rest_s - min(LAST_BYTES_S, rest_s / 2)
    await asyncio.wait([empty, stop], timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
    if not empty.done():
        # With a reason, while there is time to send it; gRPC would give none.
        log.warning("calls were cut off", grace_s=grace_s)
        relay.give_up()
        await asyncio.wait([empty, stop], return_when=asyncio.FIRST_COMPLETED)
    empty.cancel()
    await server.stop(LAST_BYTES_S)
    await asyncio.gather(stop, empty, return_exceptions=True)
