"""Whose cancellation a `CancelledError` is: that of the task, or that of what it waits for."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from .errors import Cancelled


def ends_this_task(error: BaseException) -> bool:
    """Tell whether `error` is raised to end the task that is running.

    What it waits for may also raise `CancelledError`: then that was cancelled, and
    nobody wants this task to end.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, GeneratorExit)


@contextmanager
def cancelled_alone(request_id: str = "") -> Iterator[None]:
    """Raise `Cancelled` inside where a call was cancelled, and not the task that makes it."""
    try:
        yield
    except asyncio.CancelledError as error:
        if ends_this_task(error):
            raise
        # gRPC says it with the same class when the server, or `close`, cancelled
        # the call.
        raise Cancelled(
            "the call was cancelled", code=grpc.StatusCode.CANCELLED, request_id=request_id
        ) from error
