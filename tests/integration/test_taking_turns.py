"""The real front-end and the real worker, with every thread that gRPC and Python start in them."""

import os
import sys
from pathlib import Path

import pytest

from tests.bench.rig import Rig
from tests.redis_server import RedisServer

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the policy"),
]


def policies(pid: int) -> list[int]:
    """Return that of each thread."""
    return [os.sched_getscheduler(int(entry.name)) for entry in Path(f"/proc/{pid}/task").iterdir()]


async def test_no_thread_of_a_front_end_or_a_worker_interrupts_others(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    rig = Rig(own_redis, tmp_path)
    try:
        for process in await rig.no_op():
            found = policies(process.pid)
            assert len(found) > 1
            assert set(found) == {os.SCHED_BATCH}
    finally:
        await rig.close()
