"""From what a reply says of a failure to the error that it is."""

from typing import Final

from despacho.job.v1.job_pb2 import Failure
from dispatch import errors

_BY_REASON: Final = {leaf.reason: leaf for leaf in errors.leaves()}

_IN_REPLIES: Final = (
    errors.InvalidImage,
    errors.JobFailed,
    errors.ExpiredInQueue,
    errors.OperationCancelled,
)


def error_of(failure: Failure) -> errors.DespachoError:
    """Return the error that a worker, or the end of an operation, wrote down."""
    kind = _BY_REASON.get(failure.reason)
    if kind is not None and issubclass(kind, _IN_REPLIES):
        return kind(failure.message)
    # A newer worker may know reasons that this front-end does not.
    return errors.InferenceFailed(failure.message or "the worker gave no reason")
