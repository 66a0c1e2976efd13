"""Every knob of the front-end."""

from typing import Annotated, Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from dispatch.redis_url import RedisUrl
from telemetry.metrics import MetricsAddress

MIB = 1024 * 1024


class ServerSettings(BaseSettings):
    """Read from the environment by `__main__.py`; tests pass values."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_prefix="SERVER_",
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    address: str = "127.0.0.1:50051"
    """Where to listen: `host:port` (port 0: any free one) or `unix:/path`."""

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
    """Largest encoded image, bytes."""

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
    uploads in progress and of batches, over all calls; apart from `SERVER_MAX_IN_FLIGHT_BYTES`."""

    max_concurrent_streams: Annotated[int, Field(ge=1)] = 4096
    """Most calls in progress on one connection."""

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

    metrics_address: MetricsAddress = ""
    """Where Prometheus reads the metrics of this process: `host:port` (port 0: any free one, which
    the log names). Empty: nowhere."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level that is logged."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """How a log line looks; `auto`: for a person on a terminal, JSON elsewhere."""
