"""Everything this project raises on purpose.

    DespachoError
    ├── InvalidRequest          the caller must change the request; has `field`
    │   ├── InvalidArgument
    │   └── InvalidImage
    │       ├── ImageEmpty
    │       ├── ImageUndecodable
    │       ├── ImageFormatUnsupported
    │       └── ImageTooLarge
    ├── RequestIdReused         the id of a submission belongs to other content
    ├── NotFound                it is not there (any more); has `kind` and `name`
    │   ├── ModelNotFound       nobody ever served it
    │   ├── OperationNotFound
    │   └── DeadLetterNotFound
    ├── NotPossible             the system is in no state to do that
    │   ├── DurabilityUnavailable
    │   └── ModelInUse
    ├── Unauthenticated         nobody knows who calls
    │   ├── CredentialsMissing
    │   └── CredentialsInvalid
    ├── ScopeMissing            the caller is known, and may not do that
    ├── Retryable               the same request may succeed later; has `retry_after_s`
    │   ├── QueueFull           a limit on waiting jobs or bytes is reached
    │   ├── RateLimited         a limit on this caller is reached
    │   └── Unavailable         something is missing for now
    │       ├── NoWorker
    │       ├── ModelLoading
    │       ├── BrokerUnavailable
    │       └── Draining
    ├── ExpiredInQueue          no reply before the caller's deadline
    ├── OperationCancelled      its caller cancelled the operation
    ├── JobFailed               the job ran, and that is the end of it
    │   ├── InferenceFailed
    │   └── JobPoisoned
    └── OutcomeUnknown          never leaves the project: resent until the deadline

Each leaf has a `reason`: stable, for machines, the same in Redis and on the
wire. Its docstring says what happened and its `advice` what to do next; both are
the table in `docs/errors.md` (`make docs`). `server/status.py` gives each leaf
its gRPC status.
"""

from typing import ClassVar, Final

MAX_QUOTED_CHARS: Final = 200
"""How much of what a caller wrote is kept in an error: it may be as long as a message."""


def quoted(text: str) -> str:
    """Return what a caller wrote in quotation marks, or the beginning of it."""
    is_cut = len(text) > MAX_QUOTED_CHARS
    return f"{text[:MAX_QUOTED_CHARS]!r}{'...' if is_cut else ''}"


class DespachoError(Exception):
    """Base of all; the message is meant for the caller."""

    reason: ClassVar[str]

    advice: ClassVar[str]
    """What the caller should do next; sent with each error, so not for long speeches."""

    worker: str = ""
    """Name of the worker that said so, for the log; empty if none did."""


class InvalidRequest(DespachoError):
    """The request cannot be served as it is; sending it again cannot help."""

    field: str = "image"
    """Name of the offending field of the request."""


class InvalidArgument(InvalidRequest):
    """A field other than the image is out of range.

    Such as `top_k`, `priority`, `request_id`, `model` (empty while several are served), or
    `request` (missing, or not a message); of a batch also `images` (none, or more than 256); of
    an upload also `options` (not first, or twice), `chunk` (missing) and `total_bytes` (negative,
    or not what came). Or a large message has more than 4096 fields.
    """

    reason = "INVALID_ARGUMENT"
    advice = "Change the field that `BadRequest` names."

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class InvalidImage(InvalidRequest):
    """The caller's bytes are not an image we accept."""


class ImageEmpty(InvalidImage):
    """The request has no image."""

    reason = "IMAGE_EMPTY"
    advice = "Send the encoded bytes."


class ImageUndecodable(InvalidImage):
    """The bytes begin like an image and cannot be decoded.

    The message says if they are cut short.
    """

    reason = "IMAGE_UNDECODABLE"
    advice = "Check the file, and whether all of it was sent."


class ImageFormatUnsupported(InvalidImage):
    """The bytes are not JPEG, PNG, WebP, GIF or BMP.

    Or they are a JPEG of a kind that browsers do not show either: in arithmetic coding, or
    lossless.
    """

    reason = "IMAGE_FORMAT_UNSUPPORTED"
    advice = "Convert the image; send bytes, not base64."


class ImageTooLarge(InvalidImage):
    """The image is larger than the limit, in bytes or in pixels.

    In bytes it is `SERVER_MAX_IMAGE_BYTES` (16 MiB), in pixels `WORKER_MAX_IMAGE_PIXELS` (100
    million), in height a million pixels; the message says which.
    """

    reason = "IMAGE_TOO_LARGE"
    advice = "Scale the image down."


class RequestIdReused(DespachoError):
    """`SubmitPrediction`: the `request_id` was used for another model, image or option."""

    reason = "REQUEST_ID_REUSED"
    advice = "Take a new UUID for each thing you submit, and the same one only to repeat it."


class NotFound(DespachoError):
    """What was asked for by name is not there."""

    kind: ClassVar[str]
    """What it would be."""

    def __init__(self, name: str, message: str = "") -> None:
        super().__init__(message or f"there is no {self.kind} named {quoted(name)} here")
        self.name = name[:MAX_QUOTED_CHARS]


class ModelNotFound(NotFound):
    """No worker ever announced this model."""

    reason = "MODEL_NOT_FOUND"
    advice = "`ListModels` (`despacho models`) tells the names; start a worker for it."
    kind = "model"

    def __init__(self, name: str, message: str = "") -> None:
        super().__init__(name, message or f"no model named {quoted(name)} was ever served here")


class OperationNotFound(NotFound):
    """There is no such operation, or no more.

    It never was, it was deleted, it has ended longer than `SERVER_OPERATION_TTL_S` (1 h) ago, or
    it belongs to another caller.
    """

    reason = "OPERATION_NOT_FOUND"
    advice = "Submit again."
    kind = "operation"


class DeadLetterNotFound(NotFound):
    """It was purged or replayed, or it made room for newer ones."""

    reason = "DEAD_LETTER_NOT_FOUND"
    advice = "`ListDeadLetters` (`despacho dead-letters list`) tells what is there."
    kind = "dead letter"


class NotPossible(DespachoError):
    """The system is in no state to do that, and will not be by itself."""


class DurabilityUnavailable(NotPossible):
    """`DURABILITY_SYNCED` needs Redis 7.2 or Valkey 7.2 with an append-only file."""

    reason = "DURABILITY_UNAVAILABLE"
    advice = "Submit with `DURABILITY_WRITTEN`, or ask the operator."


class ModelInUse(NotPossible):
    """`ForgetModel`: a worker of the model lives, images wait, or it has dead letters.

    The message says which.
    """

    reason = "MODEL_IN_USE"
    advice = "Stop the workers, or purge the letters."


class Unauthenticated(DespachoError):
    """The server wants to know who calls, and does not."""


class CredentialsMissing(Unauthenticated):
    """The server wants an API key and the call has none."""

    reason = "CREDENTIALS_MISSING"
    advice = "Send it in the metadata `authorization: Bearer KEY`."


class CredentialsInvalid(Unauthenticated):
    """The API key is not, or no longer, one of this server.

    Or what was sent is not one key.
    """

    reason = "CREDENTIALS_INVALID"
    advice = "Ask the operator."


class ScopeMissing(DespachoError):
    """The API key is good, and not for this method.

    The message names the scope.
    """

    reason = "SCOPE_MISSING"
    advice = "Ask the operator."


class Retryable(DespachoError):
    """The same request may succeed later."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """How long the caller should wait, seconds."""


class QueueFull(Retryable):
    """A limit is reached; the subject says which.

    Of calls `model:<name>/jobs`, `model:<name>/bytes` and `server/bytes`; of operations
    `model:<name>/operations`, `model:<name>/operation-bytes` and `caller/operations` (those kept);
    of both `server/jobs`, `server/receiving` (uploads in progress, batches, submissions, and slow
    calls that need no key) and `model:<name>/memory` (Redis is full). `RetryInfo` says 0.05 to
    30 s, by how fast the queue drains; 60 s for `caller/operations`.
    """

    reason = "QUEUE_FULL"
    advice = (
        "Wait as long as `RetryInfo` says; if it goes on, add workers, or delete operations "
        "that have ended."
    )

    def __init__(self, subject: str, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.subject = subject
        """Which limit was reached, such as `model:efficientnet-lite0/jobs`."""


class RateLimited(Retryable):
    """This API key has used up what it may use; the subject says which limit.

    `key:<name>/requests_per_s` or `key:<name>/max_in_flight`.
    """

    reason = "RATE_LIMITED"
    advice = "Wait as long as `RetryInfo` says; other callers are not affected."

    def __init__(self, message: str, *, subject: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.subject = subject
        """Which limit was reached, such as `key:camera-1/requests_per_s`."""


class Unavailable(Retryable):
    """Something that is needed is not there for now."""


class NoWorker(Unavailable):
    """The model was served before, and no worker is ready.

    None has been for `SERVER_NO_WORKER_GRACE_S` (20 s).
    """

    reason = "NO_WORKER"
    advice = "Wait; the operator starts a worker, or looks at why the last one ended."


class ModelLoading(Unavailable):
    """No worker of the model is ready, and at least one is loading it.

    None has been ready for `SERVER_NO_WORKER_GRACE_S` (20 s).
    """

    reason = "MODEL_LOADING"
    advice = "Wait as long as `RetryInfo` says."


class BrokerUnavailable(Unavailable):
    """The front-end cannot reach Redis, or Redis refuses its commands."""

    reason = "BROKER_UNAVAILABLE"
    advice = "Wait; the operator looks at Redis and at `REDIS_URL`."


class Draining(Unavailable):
    """This front-end is shutting down."""

    reason = "DRAINING"
    advice = (
        "Try again: the next attempt should reach another front-end; of a stream or a batch, "
        "send what was not answered."
    )


class ExpiredInQueue(DespachoError):
    """No worker answered before the deadline, or before the 30 s of a call that has none.

    Or an upload was not complete by then, or Redis had not answered yet. Or the message of a call
    that needs no key took more than 5 s.
    """

    reason = "EXPIRED_IN_QUEUE"
    advice = "Give it longer, or look at `queue_depth` and `estimated_wait` of `GetModel`."


class OperationCancelled(DespachoError):
    """Only in `Operation.error`: the caller cancelled it before it had ended."""

    reason = "OPERATION_CANCELLED"
    advice = "Submit it again if it is wanted after all."


class JobFailed(DespachoError):
    """The job is over without an answer, through no fault of the request's form."""


class InferenceFailed(JobFailed):
    """The model, or the decoder, raised on this image alone.

    The log of the worker has the traceback.
    """

    reason = "INFERENCE_FAILED"
    advice = "Do not send the same image again: it will fail again."


class JobPoisoned(JobFailed):
    """Two workers were lost while they held this image (`WORKER_MAX_DELIVERIES` - 1).

    It is in the dead-letter stream of the model, for the operator.
    """

    reason = "JOB_POISONED"
    advice = "Do not send it again."


class OutcomeUnknown(DespachoError):
    """The connection broke after a command was sent: it may or may not have run."""

    reason = "OUTCOME_UNKNOWN"


def leaves(base: type[DespachoError] = DespachoError) -> list[type[DespachoError]]:
    """Classes below `base` that have no subclass, in the order of the tree."""
    below = base.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [base]
