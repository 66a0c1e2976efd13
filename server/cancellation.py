"""Whose cancellation a `CancelledError` is."""

import asyncio


def was_asked_for() -> bool:
    """Say whether somebody cancelled the running task.

    gRPC cancels the task of a call whose caller has gone or whose deadline has
    passed. A `CancelledError` in a task that nobody cancelled came out of
    something it awaited, and is a failure of ours: gRPC would send no status for
    it, and the caller would wait for ever.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
