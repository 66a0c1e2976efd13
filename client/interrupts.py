"""Putting Ctrl-C off for a moment."""

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc

ResponseT = TypeVar("ResponseT")


@contextmanager
def put_off(then: Callable[[], object] | None = None) -> Iterator[None]:
    """Raise a `KeyboardInterrupt` that comes inside only at the end.

    gRPC is not made to be interrupted: it would keep a lock, or wait for an event of a call
    that was noted but not begun, and then closing the channel, or only collecting it as
    garbage, waits for ever.

    Args:
        then: ends at once what is inside; called in another thread when Ctrl-C is pressed.
    """
    is_ours_to_handle = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not is_ours_to_handle:
        yield
        return
    came = False

    def note(*_: Any) -> None:
        nonlocal came
        came = True
        if then is not None:
            # In this one it could wait for a lock of what it interrupts; and `threading` takes
            # one to start a thread.
            _thread.start_new_thread(then, ())

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if came:
            raise KeyboardInterrupt from None


def responses(call: "grpc._CallIterator[ResponseT]") -> Iterator[ResponseT]:  # only a type
    """Yield what a call answers; Ctrl-C cancels it."""
    while True:
        with put_off(call.cancel):
            try:
                response = next(call)
            except StopIteration:
                return
        yield response
