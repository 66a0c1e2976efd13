"""What one server has written can be moved to another one, as docs/operations.md says."""

import shutil
import time
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from dispatch.work_queue import WorkQueue
from tests.operation_steps import MODEL, answer, new, opened, submit, take
from tests.redis_matrix import SOURCES, Source, installed
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

LIMIT_S: Final = 10.0


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.wanted)
async def test_operations_go_to_another_server(
    own_redis: RedisServer, tmp_path: Path, source: Source
) -> None:
    binary = installed(source)
    if binary is None:
        pytest.skip(f"no {source.wanted} here; `make test-redis-matrix` has them all")
    await fill(own_redis)
    with own_redis.client() as client:
        before = contents(client)
        rewrite(client)
    own_redis.stop()

    folder = tmp_path / "other"
    shutil.copytree(tmp_path / "appendonlydir", folder / "appendonlydir")
    other = RedisServer(folder, binary)
    other.start()
    try:
        with other.client() as client:
            assert contents(client) == before
    finally:
        other.stop()


async def fill(server: RedisServer) -> None:
    """Leave an operation that has ended, one that a worker holds, and one that waits."""
    queue = WorkQueue(server.url, MODEL, "worker-1")
    queue.open()
    async with opened(server) as store:
        await submit(store, new(b"ended"))
        queue.complete([answer(claim) for claim in take(queue)])
        await submit(store, new(b"held"))
        assert take(queue)
        await submit(store, new(b"waits"))
    queue.close()


def rewrite(client: "redis.Redis") -> None:
    """Begin the file anew, as happens to every file that has become large."""
    client.execute_command("BGREWRITEAOF")
    limit = time.monotonic() + LIMIT_S
    while client.info("persistence")["aof_rewrite_in_progress"]:
        assert time.monotonic() < limit
        time.sleep(0.01)


def contents(client: "redis.Redis") -> dict[Any, Any]:
    """Return all that clients could find, and who has what in hand."""
    found: list[Any] = client.keys()
    return {key: (value_of(client, key), client.expiretime(key)) for key in found}


def value_of(client: "redis.Redis", key: Any) -> Any:
    match client.type(key):
        case b"string":
            return client.get(key)
        case b"hash":
            return client.hgetall(key)
        case b"set":
            return client.smembers(key)
        case b"zset":
            return client.zrange(key, 0, -1, withscores=True)
        case b"stream":
            groups = client.xinfo_groups(key)
            hands = [in_hand(client, key, group["name"]) for group in groups]
            return client.xrange(key), groups, hands
        case other:
            raise AssertionError(other)


def in_hand(client: "redis.Redis", key: Any, group: Any) -> list[tuple[Any, ...]]:
    held = client.xpending_range(key, group, "-", "+", 100)
    return [(each["message_id"], each["consumer"], each["times_delivered"]) for each in held]
