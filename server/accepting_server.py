"""A gRPC server that takes in several calls of its busiest methods at once.

grpc.aio asks its core for one call of each method at a time, and for the next one when its loop has
come round to it; and with each call it looks at all methods that it was told of. Under load that is
half of what a call costs. Here grpc.aio is told of the busy methods only, finds the others by name
when they are called, and is helped by tasks that each ask for one more call of a busy method.
See docs/adr/0024-several-calls-at-once.md.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import grpc
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined] # not in its stubs

# In quotes: generic only for type checkers.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

log = structlog.get_logger(__name__)

TAKEN_AT_ONCE: Final = 16
"""Calls of a busy method that are asked for beside the one of grpc.aio; more made no difference."""

KNOWN_VERSIONS: Final = frozenset({"1.85.1"})
"""Of grpcio, of which it was tried: what it is asked for here is no part of its public interface.
With others calls are taken in as ever."""


class AcceptingServer(grpc.aio.Server):
    """A server of grpc.aio, for `add_..._to_server` of generated code.

    Args:
        busy: full names of the methods of which many calls come at once.
        interceptors: as for `grpc.aio.server`.
        options: of `grpc.aio.server`, by their names there.
    """

    def __init__(
        self,
        busy: Collection[str],
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        **options: Any,
    ) -> None:
        self._server = grpc.aio.server(interceptors=interceptors, **options)
        inner: Any = self._server
        self._inner = inner._server  # noqa: SLF001 - there is no other way
        self._busy = busy
        self._interceptors = tuple(interceptors)
        self._handlers: dict[str, Handler] = {}
        """Of the busy methods, by full name."""

        self._tasks: set[asyncio.Task[None]] = set()
        """Those that ask for calls, and the calls that they were given."""

    def is_running(self) -> bool:
        """Return whether it takes in calls; the public methods tell when the last one has ended."""
        return bool(self._inner.is_running())

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        """Serve methods that are found by name when they are called."""
        self._server.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        """Serve those of these methods that are busy; the others are generic, too."""
        names = {method: f"/{service_name}/{method}" for method in method_handlers}
        busy = {
            method: handler
            for method, handler in method_handlers.items()
            if names[method] in self._busy
        }
        self._server.add_registered_method_handlers(service_name, busy)
        self._handlers |= {names[method]: handler for method, handler in busy.items()}

    def add_insecure_port(self, address: str) -> int:
        """Listen without encryption; return the port."""
        return self._server.add_insecure_port(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Listen with TLS; return the port."""
        return self._server.add_secure_port(address, server_credentials)

    async def start(self) -> None:
        """Begin to serve."""
        await self._server.start()
        if self._handlers and grpc.__version__ not in KNOWN_VERSIONS:
            log.warning("calls are taken in one by one", unknown_grpc_version=grpc.__version__)
            return
        for method, handler in self._handlers.items():
            for _ in range(TAKEN_AT_ONCE):
                self._keep(asyncio.create_task(self._accept(method, handler)))

    async def stop(self, grace: float | None) -> None:
        """Listen no more; return when all calls have ended, at the latest after `grace` seconds."""
        await self._server.stop(grace)
        # What was asked for is refused now, which ends those who asked.
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - its interface
        """Wait until it has stopped; return whether that took longer."""
        return await self._server.wait_for_termination(timeout)

    async def _accept(self, method: str, handler: Handler) -> None:
        """Take in calls of a method, one after the other, until the server stops."""
        inner = self._inner
        loop = asyncio.get_running_loop()
        resolver = cygrpc._MethodResolver([], {method: handler})  # noqa: SLF001
        name = method.encode()
        is_refused = False  # grpc.aio would if there were too many
        # One that was destroyed must not be asked: that would end the process.
        while inner.is_running():
            try:
                # Not cancelled while it runs: the core would write into memory that is free.
                call = await inner._request_registered_call(name)  # noqa: SLF001
            except cygrpc._RequestCallError:  # noqa: SLF001
                continue  # refused, mostly because it stops
            except Exception:
                log.exception("calls are taken in by one task less", method=method)
                return
            # From here on as grpc.aio does with the calls that it has asked for.
            answering = cygrpc._handle_rpc(  # noqa: SLF001
                *(method, resolver, self._interceptors, call, loop, is_refused)
            )
            running = cygrpc._schedule_rpc_coro(answering, call, loop, method)  # noqa: SLF001
            self._keep(loop.create_task(running))
            # The call must not live until the next one comes.
            del call, answering, running

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
