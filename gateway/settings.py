"""Every knob of the gateway."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from telemetry.addresses import HostPort, OptionalHostPort, is_of_this_machine

MIB = 1024 * 1024


class GatewaySettings(BaseSettings):
    """Read from the environment by `__main__.py`; tests pass values."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_prefix="GATEWAY_",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        # A key is nobody's business.
        hide_input_in_errors=True,
    )

    address: HostPort = "127.0.0.1:8080"
    """Where to listen: `host:port` (port 0: any free one, which the log names); a name with several
    addresses is all of them."""

    server_address: str = "127.0.0.1:50051"
    """Front-end: `host:port`, or another name that gRPC knows; a name with several addresses is
    all of them."""

    server_tls: bool = False
    """Whether the connection to the front-end is encrypted."""

    server_ca_file: str = ""
    """Roots of the front-end's certificate, PEM; with `GATEWAY_SERVER_TLS`. Empty: those that
    gRPC knows."""

    server_cert_file: str = ""
    """Certificate of the gateway for a front-end that wants one, PEM. Empty: none."""

    server_key_file: str = ""
    """Its private key, PEM, without a password."""

    api_key: Annotated[str, Field(repr=False, pattern=r"^[\x21-\x7e]*$")] = ""
    """API key with which the front-end is called for those who bring none. Empty: none is sent."""

    require_key: bool = False
    """Whether callers must bring an API key; the front-end says whether it is a good one, and
    before one that wants none nobody is let in."""

    allow_anonymous: bool = False
    """Whether to listen at an address that other machines may reach although callers need no API
    key; elsewhere the gateway refuses to start."""

    default_timeout_s: Annotated[float, Field(gt=0)] = 30
    """How long a request without `X-Request-Timeout` may take, seconds."""

    max_timeout_s: Annotated[float, Field(gt=0)] = 300
    """Longest `X-Request-Timeout`; a longer one is treated as this, seconds."""

    max_image_bytes: Annotated[int, Field(ge=1, le=512 * MIB)] = 16 * MIB
    """Largest encoded image, bytes; as `SERVER_MAX_IMAGE_BYTES`."""

    max_body_bytes: Annotated[int, Field(ge=0)] = 0
    """Largest body of a request, bytes. 0: no limit but those of its images."""

    max_held_bytes: Annotated[int, Field(ge=1)] = 256 * MIB
    """Most bytes of images that all requests together keep: those that are collected, and those
    that the front-end has not answered yet. Who finds no room gets 503 `GATEWAY_FULL`."""

    cors_origins: str = ""
    """Origins whose pages may call, separated by spaces, such as `https://photos.example`; `*`:
    all. Empty: none but the gateway's own page."""

    allowed_hosts: str = ""
    """Names that the gateway may be called by where callers need no API key, separated by spaces,
    besides `localhost` and IP addresses; `*`: any. Empty: none at an address of this machine, any
    elsewhere."""

    threads: Annotated[int, Field(ge=2, le=4096)] = 64
    """Most requests at a time; others wait."""

    max_stats_listeners: Annotated[int, Field(ge=0)] = 16
    """Most listeners to the live figures at a time; each takes one of the threads."""

    client_timeout_s: Annotated[float, Field(gt=0)] = 10
    """How long a caller may send or take nothing, or take for the head of a request, and a
    connection may be idle, seconds."""

    drain_s: Annotated[float, Field(ge=0)] = 30
    """How long SIGTERM lets requests in progress end, seconds."""

    metrics_address: OptionalHostPort = ""
    """Where Prometheus reads the metrics: `host:port` (port 0: any free one, which the log names).
    Empty: nowhere."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level that is logged."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """How a log line looks; `auto`: for a person on a terminal, JSON elsewhere."""

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Where to listen, in two parts."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def allowed_origins(self) -> frozenset[str]:
        """The origins whose pages may call."""
        return frozenset(origin.rstrip("/") for origin in self.cors_origins.split())

    @property
    def allowed_names(self) -> frozenset[str] | None:
        """By which names the gateway may be called, besides its addresses; None: by any."""
        names = frozenset(self.allowed_hosts.lower().split())
        # A page of somebody else has no key, so it does not matter what it calls us.
        if self.require_key or "*" in names:
            return None
        return names if names or is_of_this_machine(self.host_and_port[0]) else None

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        has_files = self.server_ca_file or self.server_cert_file
        if has_files and not self.server_tls:
            raise ValueError("certificates for the front-end need GATEWAY_SERVER_TLS=true")
        if bool(self.server_cert_file) != bool(self.server_key_file):
            raise ValueError("GATEWAY_SERVER_CERT_FILE and GATEWAY_SERVER_KEY_FILE belong together")
        if self.max_stats_listeners >= self.threads:
            raise ValueError("GATEWAY_MAX_STATS_LISTENERS must leave threads for others")
        if self.max_held_bytes < self.max_image_bytes:
            raise ValueError("GATEWAY_MAX_HELD_BYTES must have room for GATEWAY_MAX_IMAGE_BYTES")
        is_decided = self.require_key or self.allow_anonymous
        if not is_decided and not is_of_this_machine(self.host_and_port[0]):
            # The front-end may trust whoever is on this machine, and that is the gateway.
            raise ValueError(
                f"others may reach {self.address}, and anybody could call: set"
                " GATEWAY_REQUIRE_KEY=true, or say that this is meant with"
                " GATEWAY_ALLOW_ANONYMOUS=true"
            )
        return self
