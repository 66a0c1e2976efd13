"""A gRPC server that takes in several calls of its busiest methods at once, and reads no path.

grpc.aio asks its core for one call of each method at a time, and for the next one when its loop has
come round to it; under load that is half of what a call costs. And its loop reads the path of a
call that is of no known method. A path that is not UTF-8 ends the loop, and with it the port, while
the core still writes into memory that the loop has freed: a stranger needs one frame for it.
See docs/adr/0024-several-calls-at-once.md and docs/adr/0031-no-path-is-read.md.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
import structlog
from grpc._cython import cygrpc
from grpc.aio._server import Server

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

log = structlog.get_logger(__name__)

TAKEN_AT_ONCE: Final = 17
"""Calls of a busy method that are asked for; more made no difference."""

KNOWN_VERSIONS: Final = frozenset({"1.85.1"})
"""Of grpcio, of which it was tried: what it is asked for here is no part of its public interface.
With others calls are taken in by grpc.aio."""

PAUSE_S: Final = 1.0
"""Until calls are asked for again when that failed, seconds."""

NO_METHOD: Final = "unknown"
"""Stands for the name of a method that does not exist: grpc.aio does not show it."""


def accepting_server(
    busy: Collection[str],
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    *,
    options: Sequence[tuple[str, Any]] = (),
) -> grpc.aio.Server:
    """Return a server for `add_..._to_server` of generated code.

    Args:
        busy: full names of the methods of which many calls come at once.
        interceptors: as for `grpc.aio.server`.
        options: as for `grpc.aio.server`.
    """
    if grpc.__version__ not in KNOWN_VERSIONS:
        log.warning(
            "calls are taken in by grpc.aio",
            unknown_grpc_version=grpc.__version__,
            advice="any caller can close its port: install the version that requirements.txt has",
        )
        return grpc.aio.server(interceptors=interceptors, options=options)
    return cast("grpc.aio.Server", _Accepting(frozenset(busy), tuple(interceptors), tuple(options)))


class _Accepting(Server):
    """That of grpc.aio with another server inside."""

    def __init__(self, *arguments: Any) -> None:
        # Not the initialiser of grpc.aio: it would make the server that this one replaces.
        self._loop = cygrpc.get_working_loop()
        self._server = _Intake(self._loop, *arguments)


class _Intake(cygrpc.AioServer):  # type: ignore[misc] # not in its stubs
    """The server inside a server of grpc.aio, whose loop waits only for the end."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        busy: frozenset[str],
        interceptors: tuple[grpc.aio.ServerInterceptor, ...],
        options: Sequence[tuple[str, Any]],
    ) -> None:
        super().__init__(loop, None, (), interceptors, options, None)
        self._running_loop = loop
        self._busy = busy
        self._outside = interceptors
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        """By the full names of the methods."""

        self._tasks: set[asyncio.Task[None]] = set()
        """Those that ask for calls, and the calls that they were given."""

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: "Iterable[grpc.GenericRpcHandler]"
    ) -> None:
        """Serve methods of generated code; older code tells of them in this way only."""
        for service in generic_rpc_handlers:
            by_name: Any = service
            self.add_registered_method_handlers(by_name._method_handlers)  # noqa: SLF001

    def add_registered_method_handlers(
        self, method_handlers: "dict[str, grpc.RpcMethodHandler[Any, Any]]"
    ) -> None:
        """Serve those of these methods that are not served yet, by their full names."""
        new = {name: method_handlers[name] for name in method_handlers.keys() - self._handlers}
        super().add_registered_method_handlers(new)
        self._handlers |= new

    async def shutdown(self, grace: float | None) -> None:
        """Listen no more; return when all calls have ended, at the latest after `grace` seconds."""
        await super().shutdown(grace)
        # What was asked for is refused now, which ends those who asked.
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _make_request_call_future(self, method: bytes | None) -> "asyncio.Task[None]":
        """Begin to take in calls of a method, or of those that do not exist.

        What grpc.aio expects is one call. It is told that there is none when the server stops.
        """
        name = NO_METHOD if method is None else method.decode()
        asking = [
            self._keep(self._accept(method, name))
            for _ in range(TAKEN_AT_ONCE if name in self._busy else 1)
        ]
        return self._running_loop.create_task(_end_of(asking))

    async def _accept(self, method: bytes | None, name: str) -> None:
        """Take in calls of a method, one after the other, until the server stops."""
        loop = self._running_loop
        handlers = {} if method is None else {name: self._handlers[name]}
        resolver = cygrpc._MethodResolver([], handlers)  # noqa: SLF001
        is_refused = False  # grpc.aio would if there were too many
        # One that was destroyed must not be asked: that would end the process.
        while self.is_running():
            try:
                # Not cancelled while it runs: the core would write into memory that is free.
                if method is None:
                    call = await self._request_call()
                else:
                    call = await self._request_registered_call(method)
            except cygrpc._RequestCallError:  # noqa: SLF001
                continue  # refused, mostly because it stops
            except Exception:
                log.exception("no call could be asked for", method=name, pause_s=PAUSE_S)
                await asyncio.sleep(PAUSE_S)
                continue
            # From here on as grpc.aio does with the calls that it has asked for.
            answering = cygrpc._handle_rpc(  # noqa: SLF001
                *(name, resolver, self._outside, call, loop, is_refused)
            )
            self._keep(cygrpc._schedule_rpc_coro(answering, call, loop, name))  # noqa: SLF001
            # The call must not live until the next one comes.
            del call, answering

    def _keep(self, work: "Coroutine[Any, Any, None]") -> "asyncio.Task[None]":
        task = self._running_loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _end_of(asking: "Collection[asyncio.Task[None]]") -> None:
    # To be cancelled while it waits ends none of them.
    await asyncio.wait(asking)
    raise cygrpc._RequestCallError  # noqa: SLF001
