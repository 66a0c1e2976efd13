"""The standard health service, fed by the fleet.

| name | serving while |
|---|---|
| `""`, `prediction.v1.AdminService` | the process answers and is not draining |
| `readiness`, and the services that need the broker | and Redis tells which models there are |
| a model's name | and a worker of the model is ready |

Clients that check the health of the service they call (`healthCheckConfig` of gRPC) send
nothing to a server that does not know that name.

The servicer that comes with gRPC is not used: it has no `List`, it holds its lock
while it writes, so that one watcher that does not read stops all news, and its
watches never end, so that they hold up every shutdown.
"""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import grpc
import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthServicer

from server.call_record import CURRENT
from server.ports import Fleet

log = structlog.get_logger(__name__)

LIVENESS: Final = ""
"""Name that stands for the process."""

READINESS: Final = "readiness"
"""Name that stands for the process with what it needs."""

SERVICES: Final = (
    "prediction.v1.PredictionService",
    "inference.GRPCInferenceService",
    "google.longrunning.Operations",
)
"""Names of the services that need the broker."""

ADMIN_SERVICE: Final = "prediction.v1.AdminService"
"""Name of the service that shows what is wrong when the broker is away."""

State: TypeAlias = health_pb2.HealthCheckResponse.ServingStatus
SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthService(HealthServicer):  # type: ignore[misc] # grpc_health publishes no types
    """Tells who can serve; follows the fleet from `async with` on."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._states: dict[str, State] = {LIVENESS: NOT_SERVING, READINESS: NOT_SERVING}
        self._is_draining = False
        self._is_closed = False
        # Replaced at each change, so that setting it wakes exactly those who waited.
        self._changed = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._refresh()
        self._follower = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)

    def drain(self) -> None:
        """Say from now on that nothing is serving."""
        self._is_draining = True
        self._set(dict.fromkeys(self._states, NOT_SERVING))

    def close(self) -> None:
        """End every watch, so that none holds up the shutdown."""
        self._is_closed = True
        self._announce()

    async def Check(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> health_pb2.HealthCheckResponse:
        """Tell the state of one name."""
        state = self._states.get(request.service)
        if state is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, "nothing has this name", CURRENT.get().trailers
            )
        return health_pb2.HealthCheckResponse(status=state)

    async def List(
        self,
        request: health_pb2.HealthListRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> health_pb2.HealthListResponse:
        """Tell the state of every name."""
        del request, context
        return health_pb2.HealthListResponse(
            statuses={
                name: health_pb2.HealthCheckResponse(status=state)
                for name, state in self._states.items()
            }
        )

    async def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Tell the state of one name, and each change; a slow reader misses some."""
        del context
        told: State | None = None
        while True:
            changed = self._changed
            state = self._states.get(request.service, SERVICE_UNKNOWN)
            if state != told:
                yield health_pb2.HealthCheckResponse(status=state)
                told = state
            elif self._is_closed:
                return
            else:
                await changed.wait()

    async def _follow(self) -> None:
        try:
            while True:
                self._refresh()
                await self._fleet.changed()
        except Exception:
            # Old news are worse than bad news: say so, and let somebody restart us.
            log.exception("health no longer follows the fleet")
            self.drain()

    def _refresh(self) -> None:
        if self._is_draining:
            return
        is_ready = self._fleet.is_current
        states = {
            view.card.name: SERVING if is_ready and view.ready_workers else NOT_SERVING
            for view in self._fleet.models()
        }
        # Last, because no model may speak for the process.
        readiness = SERVING if is_ready else NOT_SERVING
        states |= dict.fromkeys((LIVENESS, ADMIN_SERVICE), SERVING)
        states |= dict.fromkeys((READINESS, *SERVICES), readiness)
        self._set(states)

    def _set(self, states: dict[str, State]) -> None:
        if states != self._states:
            self._states = states
            self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
