"""What the client returns: frozen values that know nothing of the wire."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

from .errors import DespachoError

KeyT = TypeVar("KeyT")


class Priority(StrEnum):
    """Order in which waiting images are taken by workers."""

    HIGH = "high"
    """For a person who is waiting."""

    NORMAL = "normal"

    LOW = "low"
    """For work that can wait."""


class ModelState(StrEnum):
    """Whether a model can answer now."""

    READY = "ready"

    LOADING = "loading"
    """No worker is ready, at least one is loading the model."""

    NO_WORKER = "no_worker"
    """Served before; no worker is there now."""

    UNKNOWN = "unknown"


class OperationState(StrEnum):
    """How far an operation has come."""

    QUEUED = "queued"

    RUNNING = "running"
    """A worker has taken it."""

    DONE = "done"
    """It has ended: labels, an error, or cancelled."""

    UNKNOWN = "unknown"


class Health(StrEnum):
    """Answer of the standard health service."""

    SERVING = "serving"
    NOT_SERVING = "not_serving"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Label:
    """One label of an image."""

    label: str

    class_id: int
    """Index in `Model.labels`."""

    score: float
    """Probability. Range [0, 1]."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one prediction went."""

    queue_s: float
    """Until a worker took the image up."""

    decode_s: float
    """Decoding and resizing."""

    inference_s: float
    """Running the model on the batch the image was in."""

    total_s: float
    """From arrival at the server to the reply; more than the sum of the parts."""

    batch_size: int
    """Images in the batch."""

    attempt: int
    """Which delivery to a worker succeeded. 1 unless a worker was lost."""


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """The labels of one image."""

    labels: tuple[Label, ...]
    """Best first."""

    model: str

    model_version: str

    timing: Timing

    worker: str
    """Name of the worker that answered."""

    request_id: str
    """Also in the server's logs."""

    scores: tuple[float, ...] = ()
    """Of every class, in the order of `Model.labels`; empty unless asked for."""


@dataclass(frozen=True, slots=True)
class StreamOutcome(Generic[KeyT]):
    """What became of one image of a stream: either `result` or `error` is set."""

    key: KeyT
    """The caller's own key of the image."""

    result: PredictionResult | None = None

    error: DespachoError | None = None

    def unwrap(self) -> PredictionResult:
        """Return the result.

        Raises:
            DespachoError: the image failed.
        """
        if self.error is not None:
            raise self.error
        if self.result is None:
            raise ValueError("an outcome has a result or an error")
        return self.result


@dataclass(frozen=True, slots=True)
class Operation:
    """An image that was submitted. As it was when the server was asked: see `wait`."""

    name: str
    """`models/{model}/operations/{id}`; all that is needed to ask again."""

    model: str

    state: OperationState

    attempt: int
    """Which delivery to a worker this is, or was; 0 while queued for the first time."""

    created_at: datetime | None
    """When the server accepted it."""

    ended_at: datetime | None

    expires_at: datetime | None
    """When the server will forget it; while it runs, at the latest."""

    estimated_position: int
    """Operations that are taken before this one, plus one; 0 unless queued."""

    request_id: str
    """What it was submitted with; also in the server's logs."""

    result: PredictionResult | None = None

    error: DespachoError | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has ended; then either `result` or `error` is set."""
        return self.state is OperationState.DONE

    def unwrap(self) -> PredictionResult:
        """Return the result.

        Raises:
            DespachoError: the operation failed or was cancelled.
            ValueError: it has not ended.
        """
        if self.error is not None:
            raise self.error
        if self.result is None:
            raise ValueError(f"the operation has not ended: {self.name} is {self.state}")
        return self.result


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An image that was set aside because the workers that held it died."""

    name: str
    """`models/{model}/deadLetters/{id}`."""

    request_id: str
    """Of the call or operation it came from."""

    deliveries: int
    """How often it was given to a worker."""

    reason: str
    """Such as `JOB_POISONED`."""

    created_at: datetime | None
    """When it was set aside."""

    size_bytes: int
    """What it counts for in the limit."""

    top_k: int
    """How many labels were asked for."""

    image: bytes = field(default=b"", repr=False)
    """Encoded; empty in a list of letters."""


@dataclass(frozen=True, slots=True)
class Model:
    """What the server knows of a model."""

    name: str

    version: str
    """Of the worker that became ready last, or of another ready one after its end."""

    engine: str
    """What runs it, such as `tensorflow`."""

    labels: tuple[str, ...]
    """Names of the classes, by `class_id`; empty in a list of models."""

    class_count: int

    input_width: int
    """Pixels."""

    input_height: int
    """Pixels."""

    state: ModelState

    live_workers: int

    queue_depth: int
    """Images accepted and not yet answered; without operations."""

    estimated_wait_s: float | None
    """How long an image accepted now would wait, seconds; None: not measured."""

    live_versions: tuple[str, ...]
    """More than one during a rolling update."""

    max_batch_size: int

    queued_operations: int = 0
    """Operations accepted and not yet ended."""
