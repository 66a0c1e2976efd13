"""A gRPC server that is there until it is stopped.

gRPC for Python reads the paths of calls in the task that takes in all but busy methods. A path
that is not UTF-8 ends this task, and gRPC then closes the port, for good and without telling
anybody: a stranger needs one frame for it, and no key. Nothing can be put before that, so the
server is replaced: calls in progress go on, and the port is closed for a moment.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import grpc
import structlog

from server.accepting_server import AcceptingServer
from server.binding import CannotListen, bind

log = structlog.get_logger(__name__)

LOOK_S: Final = 0.05
"""How often it is looked at, seconds."""

LONGEST_PAUSE_S: Final = 5.0
"""Between two tries to listen again, seconds; the first ones come sooner."""


class LastingServer:
    """Listens at one address, whatever becomes of a server of gRPC.

    Args:
        make: returns one that serves what it should and does not listen yet.
        address: as for `bind`.
        credentials: as for `bind`.
        call_limit_s: how long calls may go on that a replaced one has, seconds.
    """

    def __init__(
        self,
        make: Callable[[], AcceptingServer],
        address: str,
        credentials: grpc.ServerCredentials | None,
        *,
        call_limit_s: float,
    ) -> None:
        self._make = make
        self._address = address
        self._credentials = credentials
        self._call_limit_s = call_limit_s
        self._server = make()
        self._replaced: dict[asyncio.Task[None], AcceptingServer] = {}
        """Those that still have calls, by the task that waits for these."""

        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Begin to serve; return the address with the real port.

        Raises:
            CannotListen: the address is in use, or not ours.
        """
        self._address = bind(self._server, self._address, self._credentials)
        await self._server.start()
        self._keeper = asyncio.create_task(self._keep())
        return self._address

    async def stop(self, grace_s: float) -> None:
        """Listen no more; return when all calls have ended, at the latest after `grace_s`.

        Harmless when repeated, also with a shorter time while the first has not returned.
        """
        if self._keeper is not None:
            self._keeper.cancel()
        servers = (self._server, *self._replaced.values())
        await asyncio.gather(*(server.stop(grace_s) for server in servers))

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._server.is_running():
                log.error("gRPC closed the port by itself; opening it again", address=self._address)
                ending = asyncio.create_task(self._server.stop(self._call_limit_s))
                self._replaced[ending] = self._server
                ending.add_done_callback(self._replaced.pop)
                self._server = self._make()
                await self._listen_again()
                await self._server.start()

    async def _listen_again(self) -> None:
        pause_s = LOOK_S
        while True:
            try:
                bind(self._server, self._address, self._credentials)
            except CannotListen as error:
                # The other one may not have let go of it yet.
                log.warning("cannot listen again yet", error=str(error), pause_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                return
