"""The live figures: asked for by one call that lasts, however many listen."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import structlog
from flask import json

from client.errors import Cancelled, DespachoError, Retryable
from client.messages import Messages, StatsCall
from gateway import problems
from gateway.caller import Key, new_request_id
from gateway.json_mapping import to_json

log = structlog.get_logger(__name__)

PERIOD_S: Final = 1.0
"""How often the figures come."""

PAUSE_S: Final = 1.0
"""How long to wait after the front-end went away."""

FIRST_S: Final = 5.0
"""How long a new listener waits for the first figures, or for why there are none."""


class TooManyListeners(Exception):
    """All places are taken."""


class StatsHub:
    """Hands the figures to those who listen.

    Args:
        upstream: the front-end.
        max_listeners: most of them at a time.
    """

    def __init__(self, upstream: Messages, *, max_listeners: int) -> None:
        self._upstream = upstream
        self._max_listeners = max_listeners
        self._count = 0
        self._feeds: dict[Key, Feed] = {}
        self._is_closed = False
        self._lock = threading.Lock()

    @contextmanager
    def listening(self, key: Key) -> Iterator["Feed"]:
        """Listen while inside; those with the same key share a feed.

        Raises:
            TooManyListeners: there are others enough.
            DespachoError: why somebody who comes later gets no figures.
        """
        with self._place():
            with self._lock:
                is_first = self._living(key) is None
            if not is_first:
                # Its call began when the key was good, which it may no longer be.
                self._ask(key)
            feed = self._join(key)
            try:
                yield feed
            finally:
                self._leave(key, feed)

    @contextmanager
    def _place(self) -> Iterator[None]:
        with self._lock:
            if self._count >= self._max_listeners:
                raise TooManyListeners
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1

    def _living(self, key: Key) -> "Feed | None":
        feed = self._feeds.get(key)
        return None if feed is None or feed.has_ended else feed

    def _ask(self, key: Key) -> None:
        """Return once the front-end has shown figures to this key."""
        call = self._watch(key, new_request_id(), timeout_s=FIRST_S)
        try:
            next(iter(call), None)
        except Retryable as error:
            # All else it says of a good key, and the feed tells why there are no figures.
            if error.reason in {"", "DRAINING"}:
                raise
        finally:
            call.cancel()

    def _watch(self, key: Key, request_id: str, timeout_s: float | None = None) -> StatsCall:
        metadata = (*key, ("x-request-id", request_id))
        return self._upstream.watch_stats(PERIOD_S, metadata, timeout_s)

    def _join(self, key: Key) -> "Feed":
        with self._lock:
            feed = self._living(key)
            if feed is None:
                feed = self._feeds[key] = Feed(partial(self._watch, key))
                feed.start()
                if self._is_closed:
                    # A page comes again at once; nobody would end its request any more.
                    feed.stop()
            feed.listeners += 1
        return feed

    def _leave(self, key: Key, feed: "Feed") -> None:
        with self._lock:
            feed.listeners -= 1
            if not feed.listeners:
                feed.stop()
                if self._feeds.get(key) is feed:
                    del self._feeds[key]

    def close(self) -> None:
        """End all feeds, and so the requests of all listeners."""
        with self._lock:
            self._is_closed = True
            for feed in self._feeds.values():
                feed.stop()


class Feed:
    """The figures that callers with the same credentials may see.

    Args:
        watch: asks the front-end for them, under a request id.
    """

    def __init__(self, watch: Callable[[str], StatsCall]) -> None:
        self.listeners = 0
        self.has_ended = False
        """Whether no more events will come."""

        self.refusal: DespachoError | None = None
        """Why there are none, if trying again does not help."""

        # Not that of a listener, of whom there may be several.
        self._request_id = new_request_id()
        self._watch = watch
        self._call: StatsCall | None = None
        self._number = 0
        self._event = ""
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stats", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; harmless when repeated."""
        self._stopping.set()
        call = self._call
        if call is not None:
            call.cancel()

    def next(self, after: int, limit_s: float) -> tuple[int, str]:
        """Return the newest event and its number, waiting until there is one behind `after`.

        An event that a slow listener did not take is replaced by the next one. If
        there is none in time, or there will be none, its text is empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._number > after or self.has_ended, limit_s)
            if self._number > after:
                return self._number, self._event
            return after, ""

    def _run(self) -> None:
        try:
            self._listen()
        except Exception:
            # Listeners are told as well, and may come again.
            log.exception("the live figures ended unexpectedly", request_id=self._request_id)
            self._publish_problem(problems.internal())
        finally:
            with self._changed:
                self.has_ended = True
                self._changed.notify_all()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            was_heard = False
            try:
                self._call = call = self._watch(self._request_id)
                if self._stopping.is_set():
                    call.cancel()
                for message in call:
                    was_heard = True
                    self._publish("stats", json.dumps(to_json(message)))
            except Retryable as error:
                # Each front-end closes its connections at times, and another one may be there.
                if not was_heard:
                    self._publish_problem(problems.of_error(error))
                self._stopping.wait(PAUSE_S)
            except Cancelled:
                self._stopping.wait(PAUSE_S)
            except DespachoError as error:
                self.refusal = error
                self._publish_problem(problems.of_error(error))
                break

    def _publish_problem(self, problem: problems.Problem) -> None:
        self._publish("problem", json.dumps(problem.body(self._request_id)))

    def _publish(self, name: str, data: str) -> None:
        with self._changed:
            self._number += 1
            self._event = f"event: {name}\ndata: {data}\n\n"
            self._changed.notify_all()
