"""How the channel behaves: retries, limits, keepalive. The same for both clients."""

import json
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from . import __version__
from .api_key import Metadata, check_confidential, metadata_of, stays_here
from .errors import Cancelled

SLACK_BYTES: Final = 1024 * 1024
"""What a message may have besides its image: options, framing, labels, scores."""

RETRYABLE_CODES: Final = ("UNAVAILABLE",)
"""What gRPC tries again by itself. Not DEADLINE_EXCEEDED: the time is used up. Not
RESOURCE_EXHAUSTED: see `patience.py`."""

RETRIED: Final[tuple[dict[str, str], ...]] = (
    # `SubmitPrediction` is safe because the client names each request.
    {"service": "prediction.v1.PredictionService"},
    {"service": "google.longrunning.Operations"},
    # `ReplayDeadLetter` is missing: the second time the letter is not there.
    # Health, too: a probe wants to know how things are now.
    *(
        {"service": "prediction.v1.AdminService", "method": method}
        for method in ("ListDeadLetters", "GetDeadLetter", "PurgeDeadLetters", "ForgetModel")
    ),
)
"""Methods that may be called twice."""

RECONNECT_S: Final = (0.2, 5.0)
"""First and longest pause between attempts to connect, while calls wait for it. gRPC's own grow
to two minutes: so much later a client would find a server that is back."""

KEEPALIVE_INTERVAL_S: Final = 30.0
"""How often a silent connection with calls on it is tested."""

KEEPALIVE_TIMEOUT_S: Final = 10.0
"""How long such a test may take before the connection counts as broken."""

SERVICE_CONFIG: Final[dict[str, Any]] = {
    # A name with several addresses is a set of front-ends: use all of them.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": list(RETRIED),
            # The waits are random, up to these; a server's `grpc-retry-pushback-ms`
            # overrides them inside gRPC. Five attempts are the most it allows.
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": list(RETRYABLE_CODES),
            },
        }
    ],
    # A burst of 50 failures is ridden out; after that retries add at most 10 % to
    # the load, so clients do not keep down a server that is on its knees.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}


@dataclass(frozen=True, kw_only=True)
class Access:
    """How to connect, and as whom."""

    credentials: grpc.ChannelCredentials | None
    api_key: str = field(repr=False)
    allow_insecure_key: bool

    def metadata(self, target: str | None) -> Metadata:
        """Return what goes with each call.

        Args:
            target: as in `Client`; None: a channel that was brought along, whose
                confidentiality is the business of whoever made it.

        Raises:
            ValueError: the key is not one.
            InsecureKey: others could read it.
        """
        if not self.api_key:
            return ()
        if self.credentials is None and target is not None and not self.allow_insecure_key:
            check_confidential(target)
        return metadata_of(self.api_key)

    def options(self, target: str) -> list[tuple[str, Any]]:
        """Return channel arguments."""
        shows_key = self.api_key and self.credentials is None
        # A proxy of the environment would see the key, and does not know this machine
        # by the same names.
        return [("grpc.enable_http_proxy", 0)] if shows_key or stays_here(target) else []


def closed() -> Cancelled:
    """Return what a call on a client that was closed raises."""
    return Cancelled("the client was closed", code=grpc.StatusCode.CANCELLED)


def options(target: str, *, max_image_bytes: int, access: Access) -> list[tuple[str, Any]]:
    """Return the channel arguments."""
    max_message_bytes = max_image_bytes + SLACK_BYTES
    return [
        *access.options(target),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        # gRPC keeps what it may have to send again. At the default of 256 KiB
        # larger requests would silently not be retried.
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.initial_reconnect_backoff_ms", round(RECONNECT_S[0] * 1000)),
        ("grpc.max_reconnect_backoff_ms", round(RECONNECT_S[1] * 1000)),
        ("grpc.keepalive_time_ms", round(KEEPALIVE_INTERVAL_S * 1000)),
        ("grpc.keepalive_timeout_ms", round(KEEPALIVE_TIMEOUT_S * 1000)),
        # The one that gRPC really waits for, a minute unless it is told.
        ("grpc.http2.ping_timeout_ms", round(KEEPALIVE_TIMEOUT_S * 1000)),
        # Only while calls are waiting: idle connections may die unnoticed.
        ("grpc.keepalive_permit_without_calls", 0),
        # A call may wait in the queue for minutes without data.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.primary_user_agent", f"despacho/{__version__}"),
    ]
