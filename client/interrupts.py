"""Keeping out of gRPC what a signal handler raises, such as the `KeyboardInterrupt` of Ctrl-C.

Python runs these handlers in the main thread, between any two steps. gRPC is not made for that:
it would keep a lock, or wait for an event of a call that was noted but not begun, and then neither
the next call nor closing the channel ever ends. So another thread does what the main one asks of
gRPC, and the main one waits for it in a queue that is written in C: nothing in there is half done
(docs/adr/0032-no-grpc-in-the-main-thread.md).
"""

import _thread
import contextvars
import os
import queue
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

AnswerT = TypeVar("AnswerT")

LOOK_S: Final = 0.2
"""How often the main thread looks for a signal while it waits: one may come just before it begins
to, and Windows wakes nobody."""


class Cancellation:
    """Cancels a call that may not have begun yet; may be called in any thread."""

    def __init__(self) -> None:
        self.call: Any = None
        """None: it has not begun, or is over."""

        self._is_wanted = False

    def watch(self, call: Any) -> None:
        """Note the call, which has just begun."""
        # Each side writes before it reads, so at least one of them sees what the other wrote.
        self.call = call
        if self._is_wanted:
            call.cancel()

    def __call__(self) -> None:
        """Cancel the call, now or as soon as it begins."""
        self._is_wanted = True
        call = self.call
        if call is not None:
            call.cancel()

    def forget(self) -> None:
        """Let go of the call, in the thread that did it.

        gRPC runs code when the last one does, and what a handler raises in there Python swallows.
        """
        self.call = None


class Shelter:
    """Keeps interrupts out of what is done in it."""

    def __init__(self) -> None:
        self._idle: list[_Helper] = []
        self._is_closed = False

    def run(
        self, work: Callable[[], AnswerT], cancel: Callable[[], object] | None = None
    ) -> AnswerT:
        """Return what `work` returns, or raise what it raises.

        Args:
            work: called in another thread if this is the main one.
            cancel: ends `work`; called in a third thread when the wait for it is interrupted.
        """
        if not _is_open_to_signals():
            return work()
        helper = self._helper()
        if helper is None:
            return work()
        outcome = helper.do(work, cancel)
        if not self._is_closed:
            self._idle.append(helper)
        if not isinstance(outcome, _Raised):
            return outcome
        try:
            raise outcome.error
        finally:
            # This frame and the error would keep each other, and the request with them.
            del outcome.error

    def close(self) -> None:
        """End the threads that have nothing to do, and later the others."""
        self._is_closed = True
        self._idle.clear()

    def _helper(self) -> "_Helper | None":
        try:
            helper = self._idle.pop()
        except IndexError:
            return _Helper.start()
        # Threads are not there any more after a fork.
        return helper if helper.pid == os.getpid() else _Helper.start()


class _Helper:
    """A thread that does one thing after another, as long as this object is kept."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._works = queue.SimpleQueue[Any]()
        self._outcomes = queue.SimpleQueue[Any]()

    @classmethod
    def start(cls) -> "_Helper | None":
        """Return a new one; None: Python ends, and starts no threads any more."""
        helper = cls()
        # The end of this object is the last that the thread hears of, wherever an interrupt has
        # made somebody lose it.
        gone = weakref.ref(helper, helper._works.put)
        thread = threading.Thread(
            target=_serve,
            args=(helper._works, helper._outcomes, gone),
            name="despacho-client",
            daemon=True,
        )
        try:
            # In yet another one: starting a thread takes locks, and waits.
            _thread.start_new_thread(thread.start, ())
        except RuntimeError as error:
            if error.__traceback__ and error.__traceback__.tb_next:
                # Of a signal handler: what comes from C has no frame of its own.
                raise
            return None
        return helper

    def do(
        self, work: Callable[[], AnswerT], cancel: Callable[[], object] | None
    ) -> "AnswerT | _Raised":
        """Return how `work` ended; after an interrupt this is of no use any more."""
        try:
            self._works.put(partial(contextvars.copy_context().run, work))
            while True:
                try:
                    outcome: AnswerT | _Raised = self._outcomes.get(timeout=LOOK_S)
                except queue.Empty:
                    continue
                return outcome
        except BaseException:
            # Python calls this before it looks for the next signal.
            if cancel is not None:
                _thread.start_new_thread(cancel, ())
            self._works.put(None)
            raise


@dataclass(slots=True)
class _Raised:
    error: BaseException


def _is_open_to_signals() -> bool:
    # When Python has stopped all other threads, nobody would answer.
    return _thread.get_ident() == threading.main_thread().ident and not sys.is_finalizing()


def _serve(
    works: "queue.SimpleQueue[Any]", outcomes: "queue.SimpleQueue[Any]", gone: object
) -> None:
    while (work := works.get()) is not None and work is not gone:
        outcome = _outcome(work)
        # Images are large, and the next work may be long in coming.
        del work
        outcomes.put(outcome)
        del outcome


def _outcome(work: Callable[[], AnswerT]) -> AnswerT | _Raised:
    try:
        return work()
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        return _Raised(error)
