"""The connections that no thread has: idle ones between two requests, and new ones."""

import errno
import math
import time
from typing import Any, Final

import structlog
from cheroot.connections import ConnectionManager

log = structlog.get_logger(__name__)

NO_ROOM: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Why a connection cannot be accepted although nothing is wrong with it."""

PAUSE_S: Final = 0.1
"""How long nothing is accepted when there is no room, seconds."""

WARN_EVERY_S: Final = 60.0


class OpenConnections(ConnectionManager):
    """cheroot's, for which having no file left for one more is no reason to serve none.

    It would begin anew at once and for ever, and would neither close idle connections nor look
    at those that are named behind the one that it cannot accept.
    """

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self._is_full = False
        self._warned_s = -math.inf

    def _from_server_socket(self, server_socket: Any) -> None:
        """Accept a connection; it gets a thread when it has something to say."""
        try:
            connection = super()._from_server_socket(server_socket)  # type: ignore[misc] # not in its stubs
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._is_full = True
            # Whoever waits to be accepted is still there when it is looked again.
            time.sleep(PAUSE_S)
        else:
            if connection is not None:
                self.put(connection)

    def close(self) -> None:
        """Close idle connections; those that have a request by now still get a thread."""
        # At least whoever is accepted last: cheroot looks at nothing more once it is to stop.
        for number, connection in self._selector.select(0):  # type: ignore[attr-defined]
            if connection is not self.server:
                self._selector.unregister(number)  # type: ignore[attr-defined]
                self.server.process_conn(connection)
        super().close()

    def _expire(self, threshold: float) -> None:
        """Close idle connections; cheroot asks for it about twice a second.

        Args:
            threshold: those that were not used since then, seconds of the clock.
        """
        super()._expire(threshold)  # type: ignore[misc] # not in its stubs
        if not self._is_full:
            return
        self._is_full = False
        # Not when it is noticed: one of these may have a request that is next to be looked at.
        used_s = sorted(
            connection.last_used
            for _, connection in self._selector.connections  # type: ignore[attr-defined]
            if connection is not self.server
        )
        if used_s:
            longest_idle_quarter_s = used_s[(len(used_s) - 1) // 4]
            super()._expire(math.nextafter(longest_idle_quarter_s, math.inf))  # type: ignore[misc]
        self._warn(len(used_s))

    def _warn(self, idle_count: int) -> None:
        now_s = time.monotonic()
        if now_s - self._warned_s >= WARN_EVERY_S:
            self._warned_s = now_s
            log.warning(
                "no file is left for another connection; closing idle ones", idle=idle_count
            )
