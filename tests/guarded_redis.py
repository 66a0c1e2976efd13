"""A Redis that nobody uses without a name and a password, and TLS in front of it."""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Final
from urllib.parse import quote

import redis

from tests.credentials import Identity
from tests.redis_rights import documented
from tests.redis_server import RedisServer

PASSWORDS: Final = {
    "default": "secret-of-the-administrator",
    "front-end": "secret/of the:front@end",
    "worker": "secret-of-the-worker",
}

CONTROL_S: Final = 10.0
"""How long TLS may take to start and to end."""


class GuardedRedis(RedisServer):
    """The users that docs/operations.md shows, with no more rights than it says."""

    def start(self, *options: str) -> None:
        super().start(*options)
        with redis.Redis(port=self.port) as client:
            for user in ("front-end", "worker"):
                self.allow(client, user, documented(user))
            own = ("resetpass", f">{PASSWORDS['default']}")
            client.execute_command("ACL", "SETUSER", "default", *own)

    @staticmethod
    def allow(client: "redis.Redis", user: str, rules: list[str]) -> None:
        """Give a user these rights and no others."""
        password = f">{PASSWORDS[user]}"
        client.execute_command("ACL", "SETUSER", user, "reset", "on", password, *rules)

    def forbid(self, user: str, rule: str) -> None:
        """Take one right away, from open connections as well."""
        with self.client() as client:
            self.allow(client, user, [each for each in documented(user) if each != rule])

    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port, password=PASSWORDS["default"], protocol=2)

    def url_of(self, user: str, *, password: str = "", port: int = 0, scheme: str = "redis") -> str:
        """Return the address as one user knows it."""
        secret = quote(password or PASSWORDS[user], safe="")
        return f"{scheme}://{user}:{secret}@localhost:{port or self.port}/0"

    def received(self) -> set[str]:
        """Return the commands that anybody but this test has sent."""
        with self.client() as client:
            stats = client.info("commandstats")
        return {name.removeprefix("cmdstat_") for name in stats}

    def received_bytes(self) -> int:
        """Return how much anybody has ever sent."""
        with self.client() as client:
            return int(client.info("stats")["total_net_input_bytes"])


@asynccontextmanager
async def tls_in_front_of(port: int, identity: Identity) -> AsyncIterator[int]:
    """Encrypt what a server on this machine cannot; yields the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(identity.cert_file, identity.key_file)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextmanager
def tls_thread(port: int, identity: Identity) -> Iterator[int]:
    """Do the same in a thread, for tests that have no event loop of their own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    running = tls_in_front_of(port, identity)
    begun = asyncio.run_coroutine_threadsafe(running.__aenter__(), loop)
    try:
        yield begun.result(CONTROL_S)
    finally:
        asyncio.run_coroutine_threadsafe(_end(running), loop).result(CONTROL_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CONTROL_S)
        loop.close()


async def _end(running: AbstractAsyncContextManager[int]) -> None:
    await running.__aexit__(None, None, None)
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
