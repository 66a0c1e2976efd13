"""Everything the client raises on purpose.

    DespachoError
    ├── InvalidInput        the request must change; `field` says where
    │   └── InvalidImage    the image is the reason
    ├── NotFound            no such model, operation, dead letter or health service
    ├── AccessDenied        credentials are missing, wrong or not enough
    ├── Retryable           the same request may succeed later; see `retry_after_s`
    │   ├── Overloaded      a queue or a quota is full
    │   └── Unavailable     something the server needs is missing for now
    │       └── Unreachable no server answers at the address
    ├── DeadlineExceeded    no answer in time
    ├── Cancelled           the call was given up, here or by the server
    ├── Unsupported         the server does not know the method
    └── InternalError       the server failed; not the caller's fault

`status.py` decides which class a status becomes.
"""

import grpc


class DespachoError(Exception):
    """Base of all. The text is meant for a person, the attributes for programs.

    Args:
        message: what happened.
        code: the gRPC status code; also set on errors found without a call.
        reason: stable name of the cause, such as `QUEUE_FULL`; empty when the
            error did not come from a Despacho server.
        retry_after_s: the server's hint when to try again, seconds.
        field: field of the request that is at fault.
        advice: what to do next, for a person; empty when the error did not come
            from a Despacho server.
        request_id: the request this is about; also in the server's logs.
        unanswered: keys of the images that a broken stream took from its input
            and did not answer, in the order they were sent.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        retry_after_s: float | None = None,
        field: str = "",
        advice: str = "",
        request_id: str = "",
        unanswered: tuple[object, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.field = field
        self.advice = advice
        self.request_id = request_id
        self.unanswered = unanswered


class InvalidInput(DespachoError):
    """The request cannot be served as it is; sending it again cannot help."""


class InvalidImage(InvalidInput):
    """The image cannot be read, is too large, or is not an image."""


class NotFound(DespachoError):
    """What was asked for by name is not there."""


class AccessDenied(DespachoError):
    """The server does not let this caller do that."""


class Retryable(DespachoError):
    """The same request may succeed later."""


class Overloaded(Retryable):
    """The server has too much to do, or the caller has used up a quota."""


class Unavailable(Retryable):
    """The server, or something it needs, is not there for now."""


class Unreachable(Unavailable):
    """Nothing answers at the server's address, or the connection broke."""


class DeadlineExceeded(DespachoError):
    """No answer in time. Predicting again is safe, and submitting with the same id."""


class Cancelled(DespachoError):
    """The call was given up before it was answered."""


class Unsupported(DespachoError):
    """The server does not know the method: another service, or an older version."""


class InternalError(DespachoError):
    """The server failed, or answered what the contract does not allow."""
