"""What is on the disk, and what survives."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from redis.client import Monitor

from dispatch.errors import (
    DurabilityUnavailable,
    OutcomeUnknown,
)
from dispatch.operation_store import OperationStore
from dispatch.operations import (
    Operation,
    Progress,
)
from dispatch.work_queue import WorkQueue
from tests.dispatch_steps import NOWHERE
from tests.operation_steps import (
    LIMITS,
    MODEL,
    answer,
    assert_balanced,
    counts,
    new,
    opened,
    submit,
    take,
)
from tests.redis_server import RedisServer


def knows_what_is_on_disk(server: RedisServer) -> bool:
    """Whether it has WAITAOF; Valkey says which Redis it is like."""
    with server.client() as client:
        version = str(client.info("server")["redis_version"])
    return tuple(map(int, version.split(".")[:2])) >= (7, 2)


def heard_until(monitor: Monitor, last: str) -> Iterator[dict[str, str]]:
    """Yield what a server did, the commands of scripts too."""
    for heard in monitor.listen():
        if heard["command"] == last:
            return
        yield heard


async def test_synced_is_accepted_when_the_disk_has_it_and_refused_where_none_can_tell(
    redis_server: RedisServer, store: OperationStore
) -> None:
    submissions = [store.submit(new(), is_synced=True) for _ in range(3)]
    outcomes = await asyncio.gather(*submissions, return_exceptions=True)
    if knows_what_is_on_disk(redis_server):
        progress = {each.progress for each in outcomes if isinstance(each, Operation)}
        assert progress == {Progress.QUEUED}
        assert counts(redis_server) == {"accepted": 3}
    else:
        assert {type(each) for each in outcomes} == {DurabilityUnavailable}
        assert counts(redis_server) == {}
    assert (await submit(store, new())).progress is Progress.QUEUED


@pytest.mark.parametrize("has_forgotten", [False, True])
async def test_the_disk_is_asked_after_the_submission(
    redis_server: RedisServer, store: OperationStore, *, has_forgotten: bool
) -> None:
    await submit(store, new())
    with redis_server.client() as client, client.monitor() as monitor:
        if has_forgotten:
            client.script_flush()
        with suppress(DurabilityUnavailable):
            await store.submit(new(), is_synced=True)
        client.echo("end")
        seen = [each["command"].split()[0] for each in heard_until(monitor, "ECHO end")]
    if knows_what_is_on_disk(redis_server):
        assert seen.index("XADD") < len(seen) - 1 - seen[::-1].index("WAITAOF")
    else:
        assert "XADD" not in seen


async def test_a_written_submission_that_is_repeated_as_synced_writes_before_the_disk_is_asked(
    redis_server: RedisServer, store: OperationStore
) -> None:
    if not knows_what_is_on_disk(redis_server):
        pytest.skip("needs WAITAOF")
    await submit(store, new(request_id="1"))
    with redis_server.client() as client, client.monitor() as monitor:
        assert (await store.submit(new(request_id="1"), is_synced=True)).progress is Progress.QUEUED
        client.echo("end")
        seen = [each["command"].split()[0] for each in heard_until(monitor, "ECHO end")]
    assert "XADD" not in seen
    # It has no effect, but WAITAOF waits only for what its own connection has written.
    submission = seen.index("HGET")
    assert "PEXPIREAT" in seen[submission : seen.index("WAITAOF", submission)]


async def test_photos_that_are_submitted_together_wait_for_the_disk_together(
    redis_server: RedisServer,
) -> None:
    if not knows_what_is_on_disk(redis_server):
        pytest.skip("needs WAITAOF")
    photo = bytes(1024 * 1024)
    limits = replace(LIMITS, jobs=20, size_bytes=1 << 30, kept=20)
    async with opened(redis_server, limits) as store:
        with redis_server.client() as client:
            client.config_resetstat()
            await asyncio.gather(*(store.submit(new(photo), is_synced=True) for _ in range(20)))
            # Each round asks once how Redis writes its file.
            rounds = client.info("commandstats")["cmdstat_config|get"]["calls"]
    assert rounds <= 2


async def test_synced_is_refused_where_there_is_no_append_only_file(
    own_redis: RedisServer,
) -> None:
    with own_redis.client() as client:
        client.config_set("appendonly", "no")
    async with opened(own_redis) as store:
        with pytest.raises(DurabilityUnavailable):
            await store.submit(new(), is_synced=True)
    assert counts(own_redis) == {}


async def test_a_replica_is_left_before_its_disk_is_asked(
    redis_server: RedisServer, store: OperationStore
) -> None:
    with redis_server.client() as client:
        client.replicaof(*NOWHERE)
        try:
            with pytest.raises(OutcomeUnknown, match="is a replica"):
                await store.submit(new(), is_synced=True)
        finally:
            client.replicaof("NO", "ONE")
    assert counts(redis_server) == {}


async def test_an_operation_outlives_a_killed_redis(own_redis: RedisServer) -> None:
    done, waiting = new(), new()
    queue = WorkQueue(own_redis.url, MODEL, "worker-1")
    queue.open()
    async with opened(own_redis) as store:
        await submit(store, done)
        await submit(store, waiting)
        queue.complete([answer(claim) for claim in take(queue, 1)])
        await asyncio.to_thread(own_redis.wait_until_written)
        await asyncio.to_thread(own_redis.kill)
        await asyncio.to_thread(own_redis.start)
        with suppress(OutcomeUnknown):
            await store.get(done.key)  # it may be the first to learn that its connection broke
        assert (await store.get(done.key)).progress is Progress.DONE
        assert (await store.get(waiting.key)).progress is Progress.QUEUED
    queue.close()
    assert_balanced(own_redis)
