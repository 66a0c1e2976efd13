"""A running system in which every error can be brought about."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from client import ModelState, NotFound, Unavailable
from dispatch import keys
from tests.credentials import Keys
from tests.every_way import Caller, caller_of
from tests.processes import Process
from tests.redis_server import RedisServer
from tests.stack import Stack
from tests.worker_process import MODEL

SLOW: Final = "slow"
"""A model that never answers."""

FRAGILE: Final = "fragile"
"""A model whose jobs are set aside at the second delivery."""

GONE: Final = "gone"
"""A model whose worker was killed."""

LOADING: Final = "loading"
"""A model that is never ready."""

MOST_JOBS: Final = 20
"""How many may wait for a model."""

FOR_EVER_S: Final = 3600
APPEARS_S: Final = 60.0


class World:
    """A front-end that wants API keys, models of each kind, and one caller who may do all."""

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        self.redis = redis
        self.stack = Stack(redis, folder)
        self._keys = Keys(folder / "keys.toml")
        self._keys.add("all", "predict", "operations", "admin")
        self._keys.add("narrow", "predict")
        self._keys.add("hasty", "predict", requests_per_s=0.01)
        self.keys = {name: self._keys[name] for name in ("all", "narrow", "hasty")}
        self.address = ""
        self.server: Process
        self.caller: Caller
        self.fragile: Process

    async def start_server(self, **settings: object) -> tuple[Process, str]:
        """Start a front-end for which a model is gone as soon as its worker is."""
        process = await asyncio.to_thread(
            self.stack.start_server,
            no_worker_grace_s=0,
            api_keys_file=self._keys.path,
            **settings,
        )
        return process, self.stack.address

    def start_worker(self, model: str, *options: str) -> Process:
        """Start the worker of a model; it may not be ready yet."""
        arguments = ["-m", "tests.named_worker", self.redis.url, str(self.stack.journal)]
        return self.stack.start(
            [*arguments, "--model", model, *options],
            {"WORKER_MAX_DELIVERIES": "2", "WORKER_MAX_INFERENCE_S": str(2 * FOR_EVER_S)},
        )

    async def until(self, condition: Callable[[], bool | Awaitable[bool]]) -> None:
        """Wait for something outside of this process."""
        await self.stack.until(condition, APPEARS_S)

    async def until_seen(self, model: str, state: ModelState, caller: Caller | None = None) -> None:
        """Wait until a front-end sees a model in a state."""
        client = (caller or self.caller).client

        async def is_seen() -> bool:
            try:
                return (await client.model(model)).state is state
            except (NotFound, Unavailable):
                return False

        await self.until(is_seen)

    def entries(self, model: str) -> int:
        """Return how many jobs of a model wait or are in work."""
        with self.redis.client() as client:
            return sum(client.xlen(stream) for stream in keys.job_streams(model))


@asynccontextmanager
async def running_world(redis: RedisServer, folder: Path) -> AsyncIterator[World]:
    """Start everything, and end it afterwards."""
    world = World(redis, folder)
    try:
        world.server, world.address = await world.start_server(queue_max_jobs=MOST_JOBS)
        world.start_worker(MODEL)
        world.start_worker(SLOW, "--inference-ms", str(FOR_EVER_S * 1000))
        world.start_worker(LOADING, "--load-for-ever")
        world.fragile = world.start_worker(FRAGILE)
        gone = world.start_worker(GONE)
        async with caller_of(world.address, world.keys["all"]) as world.caller:
            await world.until_seen(GONE, ModelState.READY)
            await asyncio.to_thread(gone.kill)
            for name in (MODEL, SLOW, FRAGILE):
                await world.until_seen(name, ModelState.READY)
            yield world
    finally:
        await world.stack.close()
