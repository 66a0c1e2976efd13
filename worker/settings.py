"""Every knob of a worker."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from dispatch.redis_url import RedisUrl
from telemetry.addresses import OptionalHostPort
from worker.model_spec import DEFAULT_CACHE


def _without_tilde(path: Path) -> Path:
    """Return the path with the home directory that a `~` in it stands for."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("the home directory that ~ stands for is not known") from None


class WorkerSettings(BaseSettings):
    """Read from the environment by `__main__.py`; tests pass values."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_prefix="WORKER_",
        populate_by_name=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    model: Annotated[str, Field(min_length=1)] = "efficientnet-lite0"
    """What to serve: the bundled `efficientnet-lite0`, `keras-applications:<Name>`, or the path
    of a model directory (one with a `model.toml`)."""

    engine: Literal["", "auto", "tensorflow", "litert", "openvino"] = ""
    """What runs the model; `auto`: the fastest that is installed and agrees with TensorFlow, found
    out at the first start. Empty: what the model says, which is `tensorflow` if it says nothing."""

    precision: Literal["", "float32", "bf16"] = ""
    """In which numbers it is computed; `bf16` is for OpenVINO, faster where the processor can, and
    less exact. Empty: what the model says, which is `float32` if it says nothing."""

    redis_url: Annotated[
        RedisUrl, Field(validation_alias=AliasChoices("redis_url", "REDIS_URL"))
    ] = "redis://127.0.0.1:6379/0"
    """Redis 7.0 or newer, or Valkey 7.2 or newer: `redis://`, `rediss://` or `unix://`."""

    cache_dir: Annotated[Path, AfterValidator(_without_tilde)] = DEFAULT_CACHE
    """Where prepared and converted models are kept, and what was measured of them."""

    max_batch_size: Annotated[int, Field(ge=0, le=256)] = 0
    """Most images in one inference; 0: what the model suggests. Batches are smaller where that
    labels as many images per second."""

    max_batch_wait_ms: Annotated[float, Field(ge=0)] = 5
    """How long a model that was busy may wait for images that are being decoded, milliseconds; it
    waits no longer than a larger batch saves, and not at all when it was idle."""

    max_inference_s: Annotated[float, Field(gt=0)] = 60
    """How long one inference may take before the worker counts itself as lost and ends, seconds."""

    processes: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = "auto"
    """How many processes serve the model, each with the whole model in its memory: a number from 1
    to 256, or `auto`: one for each core that may be used, as far as memory goes."""

    start_timeout_s: Annotated[float, Field(gt=0)] = 1800
    """With several processes: how long one may take until it serves, loading, downloading,
    converting and measuring included; then it is killed, and another one is started, seconds."""

    decode_threads: Annotated[int, Field(ge=0, le=64)] = 0
    """Threads of each process that decode images while the model computes; 1: its own thread does
    it, in between, which is best where each core has a process. 0: with several processes its share
    of the cores, otherwise 2, or 1 on a single core."""

    inference_threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the engine in each process; 0: with several processes its share of the cores,
    otherwise the engine's own choice."""

    alone_threads: Annotated[int, Field(ge=0)] = 0
    """Threads for one image while no other worker of this machine computes, with LiteRT and
    OpenVINO; each process then holds the model once more. Counts if `WORKER_INFERENCE_THREADS` is
    smaller and not 0. 0: with several processes all cores, at most 8, unless
    `WORKER_INFERENCE_THREADS` is set."""

    max_image_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """Largest image, width x height, read from its header before decoding."""

    max_claim_bytes: Annotated[int, Field(ge=1)] = 64 * 1024 * 1024
    """Bytes of images in hand above which no more are claimed; calls do not count those of
    operations, so both together may be twice as many. One read may exceed it: by 4 images of
    each priority, after small ones by up to 32."""

    max_deliveries: Annotated[int, Field(ge=2)] = 3
    """The delivery at which a job that killed its workers is set aside."""

    dead_letter_max_bytes: Annotated[int, Field(ge=0)] = 64 * 1024 * 1024
    """Most bytes kept in the dead-letter stream of the model; the oldest go first."""

    stop_grace_s: Annotated[float, Field(ge=0)] = 8
    """How long SIGTERM lets claimed images be finished before they are given back, seconds."""

    metrics_address: OptionalHostPort = ""
    """Where Prometheus reads the metrics of this process: `host:port` (port 0: any free one, which
    the log names). Empty: nowhere."""

    ready_file: str = ""
    """A file that is there while jobs are taken, for probes. Empty: none."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level that is logged."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """How a log line looks; `auto`: for a person on a terminal, JSON elsewhere."""
