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
wire. `server/status.py` gives each leaf its gRPC status.
"""

from typing import ClassVar


class DespachoError(Exception):
    """Base of all; the message is meant for the caller."""

    reason: ClassVar[str]


class InvalidRequest(DespachoError):
    """The request cannot be served as it is; sending it again cannot help."""

    field: str = "image"
    """Name of the offending field of the request."""


class InvalidArgument(InvalidRequest):
    """A field other than the image is out of range."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class InvalidImage(InvalidRequest):
    """The caller's bytes are not an image we accept."""


class ImageEmpty(InvalidImage):
    """There are no bytes."""

    reason = "IMAGE_EMPTY"


class ImageUndecodable(InvalidImage):
    """The bytes begin like an image and then are not one."""

    reason = "IMAGE_UNDECODABLE"


class ImageFormatUnsupported(InvalidImage):
    """The bytes are not JPEG, PNG, WebP, GIF or BMP."""

    reason = "IMAGE_FORMAT_UNSUPPORTED"


class ImageTooLarge(InvalidImage):
    """Too many bytes, or too many pixels."""

    reason = "IMAGE_TOO_LARGE"


class RequestIdReused(DespachoError):
    """The same `request_id` was used for a submission with other content."""

    reason = "REQUEST_ID_REUSED"


class NotFound(DespachoError):
    """What was asked for by name is not there."""

    kind: ClassVar[str]
    """What it would be."""

    def __init__(self, name: str, message: str = "") -> None:
        super().__init__(message or f"there is no {self.kind} named {name!r} here")
        self.name = name


class ModelNotFound(NotFound):
    """No worker ever announced this model."""

    reason = "MODEL_NOT_FOUND"
    kind = "model"

    def __init__(self, name: str, message: str = "") -> None:
        super().__init__(name, message or f"no model named {name!r} was ever served here")


class OperationNotFound(NotFound):
    """It never was, it was deleted, its time is over, or it is another caller's."""

    reason = "OPERATION_NOT_FOUND"
    kind = "operation"


class DeadLetterNotFound(NotFound):
    """It was purged or replayed, or it made room for others."""

    reason = "DEAD_LETTER_NOT_FOUND"
    kind = "dead letter"


class NotPossible(DespachoError):
    """The system is in no state to do that, and will not be by itself."""


class DurabilityUnavailable(NotPossible):
    """Redis is too old, or has no append-only file."""

    reason = "DURABILITY_UNAVAILABLE"


class ModelInUse(NotPossible):
    """It is served, or work of it is left."""

    reason = "MODEL_IN_USE"


class Unauthenticated(DespachoError):
    """The server wants to know who calls, and does not."""


class CredentialsMissing(Unauthenticated):
    """The call has no API key."""

    reason = "CREDENTIALS_MISSING"


class CredentialsInvalid(Unauthenticated):
    """The API key is nobody's, or what was sent is not one."""

    reason = "CREDENTIALS_INVALID"


class ScopeMissing(DespachoError):
    """The API key is good, and not for this."""

    reason = "SCOPE_MISSING"


class Retryable(DespachoError):
    """The same request may succeed later."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """How long the caller should wait, seconds."""


class QueueFull(Retryable):
    """The queue is at its limit."""

    reason = "QUEUE_FULL"

    def __init__(self, subject: str, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.subject = subject
        """Which limit was reached, such as `model:efficientnet-lite0/jobs`."""


class RateLimited(Retryable):
    """The caller has used up what it may use for now."""

    reason = "RATE_LIMITED"

    def __init__(self, message: str, *, subject: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.subject = subject
        """Which limit was reached, such as `key:camera-1/requests_per_s`."""


class Unavailable(Retryable):
    """Something that is needed is not there for now."""


class NoWorker(Unavailable):
    """The model was served before; no worker is alive."""

    reason = "NO_WORKER"


class ModelLoading(Unavailable):
    """Workers are there, and still loading the model."""

    reason = "MODEL_LOADING"


class BrokerUnavailable(Unavailable):
    """Redis cannot be reached."""

    reason = "BROKER_UNAVAILABLE"


class Draining(Unavailable):
    """This front-end is shutting down; another one will answer."""

    reason = "DRAINING"


class ExpiredInQueue(DespachoError):
    """No reply before the caller's deadline."""

    reason = "EXPIRED_IN_QUEUE"


class OperationCancelled(DespachoError):
    """Its caller cancelled the operation before it had ended."""

    reason = "OPERATION_CANCELLED"


class JobFailed(DespachoError):
    """The job is over without an answer, through no fault of the request's form."""


class InferenceFailed(JobFailed):
    """The model raised on this image, alone in its batch."""

    reason = "INFERENCE_FAILED"


class JobPoisoned(JobFailed):
    """Workers died on this job; it was set aside."""

    reason = "JOB_POISONED"


class OutcomeUnknown(DespachoError):
    """The connection broke after a command was sent: it may or may not have run."""

    reason = "OUTCOME_UNKNOWN"


def leaves(base: type[DespachoError] = DespachoError) -> list[type[DespachoError]]:
    """Classes below `base` that have no subclass, in the order of the tree."""
    below = base.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [base]
