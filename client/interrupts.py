"""Putting Ctrl-C off for a moment."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def put_off() -> Iterator[None]:
    """Raise a `KeyboardInterrupt` that comes inside only at the end.

    gRPC notes a call, and then starts the thread that will end it. Interrupted in between,
    closing the channel, or only collecting it as garbage, would wait for that end for ever.
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

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt
