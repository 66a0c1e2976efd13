"""Every knob of the front-end."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AliasChoices, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from dispatch.redis_url import RedisUrl
from server.addresses import UNIX, is_private, listening
from telemetry.addresses import OptionalHostPort

MIB = 1024 * 1024


class ServerSettings(BaseSettings):
    """Read from the environment by `__main__.py`; tests pass values."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_prefix="SERVER_",
        populate_by_name=True,
        use_attribute_docstrings=True,
        # A URL may have a password.
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    address: Annotated[str, AfterValidator(listening)] = "127.0.0.1:50051"
    """Where to listen: `host:port` (port 0: any free one) or `unix:/path`."""

    processes: Annotated[int, Field(ge=1, le=256)] = 1
    """How many processes serve at the address. Each is a front-end of its own: limits that are
    said to be of one process, and those of API keys, hold in each. A connection stays with one
    of them. On Linux they get about equally many; macOS gives most to one."""

    start_timeout_s: Annotated[float, Field(gt=0)] = 120
    """With several processes: how long one may take until it serves; then it is killed, and
    another one is started, seconds."""

    tls_cert_file: str = ""
    """Certificate of the server and those that lead to its root, PEM; read again when it has
    changed. Empty: connections are not encrypted."""

    tls_key_file: str = ""
    """Its private key, PEM, without a password."""

    tls_client_ca_file: str = ""
    """Roots of callers' certificates, PEM: only callers that have one can connect. Empty: callers
    need none."""

    api_keys_file: str = ""
    """API keys, as `python -m server.keys` writes them; read again when it has changed. Every
    call but health checks then needs one. Empty: none does."""

    allow_anonymous: bool = False
    """Whether to listen at an address that other machines may reach although callers need neither
    an API key nor a certificate; elsewhere the server refuses to start."""

    health_address: OptionalHostPort = ""
    """Where health checks are answered, too, and nothing else: `host:port`, without encryption,
    keys and certificates, for probes that have none. Empty: nowhere."""

    channelz: bool = False
    """Whether to serve `grpc.channelz.v1.Channelz`: connections, calls and their counts, for
    whoever looks for a fault. With API keys it needs one with the scope `admin`."""

    response_compression: Literal["none", "deflate", "gzip"] = "none"
    """How answers are compressed: with the other of the two for callers that announce only that
    one, and not at all for those that announce neither. Requests may be compressed whatever this
    says."""

    redis_url: Annotated[
        RedisUrl, Field(validation_alias=AliasChoices("redis_url", "REDIS_URL"))
    ] = "redis://127.0.0.1:6379/0"
    """Redis 7.0 or newer, or Valkey 7.2 or newer: `redis://`, `rediss://` or `unix://`."""

    default_model: str = ""
    """Model of requests that name none. Empty: the only model, if there is just one."""

    default_deadline_s: Annotated[float, Field(gt=0)] = 30
    """Deadline of a call that has none, seconds."""

    max_deadline_s: Annotated[float, Field(gt=0)] = 300
    """Longest deadline; a longer one is treated as this, seconds."""

    max_image_bytes: Annotated[int, Field(ge=1, le=512 * MIB)] = 16 * MIB
    """Largest encoded image, bytes. The gateway (`GATEWAY_MAX_IMAGE_BYTES`) and clients
    (`max_image_bytes`, `--max-image-bytes`) have limits of their own: change those with it."""

    queue_max_jobs: Annotated[int, Field(ge=1)] = 2000
    """Most images waiting or being worked on, per model, over all servers."""

    queue_max_bytes: Annotated[int, Field(ge=1)] = 512 * MIB
    """Most bytes of images waiting or being worked on, per model, over all servers."""

    max_in_flight_jobs: Annotated[int, Field(ge=1)] = 4000
    """Most images that this process waits for, over all models."""

    max_in_flight_bytes: Annotated[int, Field(ge=1)] = 1024 * MIB
    """Most bytes of images that this process waits for, over all models."""

    max_receiving_bytes: Annotated[int, Field(ge=1)] = 256 * MIB
    """Most bytes of images that this process has received and does not wait for yet: of
    uploads in progress, of batches, and of submissions that Redis does not have yet, over all
    calls; apart from `SERVER_MAX_IN_FLIGHT_BYTES`."""

    max_concurrent_streams: Annotated[int, Field(ge=1)] = 4096
    """Most calls in progress on one connection."""

    max_metadata_bytes: Annotated[int, Field(ge=1024, le=1024 * 1024)] = 16 * 1024
    """Most metadata of one call, bytes."""

    max_connection_age_s: Annotated[float, Field(gt=0)] = 3600
    """After this, a tenth more or less, connections are replaced, so that they move to new
    servers, and to new certificates, seconds. Calls in progress end first; streams that go on for
    another `SERVER_MAX_DEADLINE_S` are cut."""

    max_connection_idle_s: Annotated[float, Field(gt=0)] = 900
    """After this a connection without calls is closed, seconds."""

    handshake_timeout_s: Annotated[float, Field(gt=0)] = 20
    """How long a new connection may take until it is ready for calls, seconds."""

    stream_window: Annotated[int, Field(ge=1)] = 64
    """Images of one `PredictStream` or `PredictBatch` in flight, answers that were not taken
    included, before the server goes on to the next."""

    operations_max_jobs: Annotated[int, Field(ge=1)] = 100_000
    """Most operations waiting or being worked on, per model, over all servers; apart from
    the limits on calls."""

    operations_max_bytes: Annotated[int, Field(ge=1)] = 512 * MIB
    """Most bytes of images of those."""

    operations_max_kept: Annotated[int, Field(ge=1)] = 250_000
    """Most operations of one caller, per model, those included that have ended and can still
    be fetched; each takes about 1.3 KB of Redis
    (4 KB more with the scores of 1000 classes)."""

    operation_deadline_s: Annotated[float, Field(gt=0)] = 3600
    """How long an operation may take until it has ended, seconds."""

    operation_ttl_s: Annotated[float, Field(gt=0)] = 3600
    """How long an operation can be fetched after it has ended, seconds."""

    no_worker_grace_s: Annotated[float, Field(ge=0)] = 20
    """How long calls are still accepted after the last worker of a model has gone,
    seconds; should cover the replacement of a worker."""

    drain_s: Annotated[float, Field(ge=0)] = 30
    """How long SIGTERM lets calls in flight end, seconds."""

    metrics_address: OptionalHostPort = ""
    """Where Prometheus reads the metrics of this process: `host:port` (port 0: any free one, which
    the log names). Empty: nowhere."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level that is logged."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """How a log line looks; `auto`: for a person on a terminal, JSON elsewhere."""

    slow_call_s: Annotated[float, Field(ge=0)] = 0
    """A `Predict` or `ModelInfer` that takes at least so long has its log line at level
    `warning`, seconds. 0: none has."""

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ValueError("SERVER_TLS_CERT_FILE and SERVER_TLS_KEY_FILE belong together")
        if self.processes > 1 and self.address.startswith(UNIX):
            raise ValueError("several SERVER_PROCESSES cannot share a SERVER_ADDRESS of unix:")
        if self.tls_client_ca_file and not self.tls_cert_file:
            raise ValueError("SERVER_TLS_CLIENT_CA_FILE needs SERVER_TLS_CERT_FILE")
        knows_callers = self.api_keys_file or self.tls_client_ca_file or self.allow_anonymous
        if not knows_callers and not is_private(self.address):
            raise ValueError(
                f"others may reach {self.address}, and anybody could call: set"
                " SERVER_API_KEYS_FILE or SERVER_TLS_CLIENT_CA_FILE, or say that this is meant"
                " with SERVER_ALLOW_ANONYMOUS=true"
            )
        return self
