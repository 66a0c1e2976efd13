"""The connection to the front-end, made anew when the files of its certificates change."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog

from client.messages import Messages, secure
from gateway.parameters import MAX_WAIT_S, WAIT_SLACK_S
from gateway.settings import GatewaySettings

log = structlog.get_logger(__name__)

LOOK_S: Final = 1.0
"""How often the files are read."""

CONNECT_S: Final = 3.0
"""How long a new connection may take before the files are read again."""

Pems = tuple[bytes | None, ...]
"""Roots, private key and certificate; None: there is no such file."""


@contextmanager
def connected(settings: GatewaySettings) -> Iterator[Messages]:
    """Be connected to the front-end while inside; it is called when there is something to ask.

    Raises:
        OSError: a file of certificates cannot be read.
    """

    def read() -> Pems:
        files = (settings.server_ca_file, settings.server_key_file, settings.server_cert_file)
        return tuple(read_pem(name) if name else None for name in files)

    pems = read()
    upstream = Messages(
        settings.server_address,
        credentials=secure(*pems) if settings.server_tls else None,
        max_image_bytes=settings.max_image_bytes,
    )
    longest_call_s = settings.max_timeout_s + MAX_WAIT_S + WAIT_SLACK_S
    follower = Follower(upstream, pems, read, longest_call_s=longest_call_s)
    try:
        with follower if any(pems) else nullcontext():
            yield upstream
    finally:
        upstream.close()


def read_pem(name: str) -> bytes:
    """Return what a file of a key or of certificates has.

    Raises:
        OSError: it cannot be read, or is empty: gRPC ends the process that gives it nothing.
    """
    content = Path(name).read_bytes()
    if not content:
        raise OSError(f"{name} is empty")
    return content


class Follower:
    """Connects anew when files have changed, in a thread of its own while it is entered.

    Args:
        upstream: the connection.
        pems: what it was made with.
        read: returns what the files have now.
        longest_call_s: after which no call over a connection of before is in progress, except
            live figures, which begin again by themselves.
        now: monotonic clock, seconds.
    """

    def __init__(
        self,
        upstream: Messages,
        pems: Pems,
        read: Callable[[], Pems],
        *,
        longest_call_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._pems = pems
        self._read = read
        self._longest_call_s = longest_call_s
        self._now = now
        self._before: list[tuple[float, Callable[[], None]]] = []
        self._trouble = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="certificates")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._close_before(self._now() + self._longest_call_s)

    def look(self) -> None:
        """Connect anew if the files have changed; close what is needed no more."""
        self._close_before(self._now())
        try:
            pems = self._read()
        except OSError as error:
            self._complain(str(error))
            return
        if pems == self._pems:
            self._trouble = ""
            return
        # Only what works takes the old one's place: front-end and gateway hardly ever get
        # their new files in the same second, and somebody may be writing them just now.
        close = self._upstream.renew(secure(*pems), limit_s=CONNECT_S)
        if close is None:
            self._complain("the front-end cannot be reached with them")
            return
        log.info("new certificates in use")
        self._pems, self._trouble = pems, ""
        self._before.append((self._now() + self._longest_call_s, close))

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            self.look()

    def _complain(self, reason: str) -> None:
        if reason != self._trouble:
            log.warning("new certificates not used, the old ones stay", reason=reason)
        self._trouble = reason

    def _close_before(self, now_s: float) -> None:
        while self._before and self._before[0][0] <= now_s:
            self._before.pop(0)[1]()
