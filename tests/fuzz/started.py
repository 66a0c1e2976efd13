"""The processes that are attacked, beside the workers: how each is started."""

import socket
import time
from typing import Final

from deploy.address import free_port
from tests.chaos.rig import Rig
from tests.processes import Process

PAUSE_S: Final = 0.1


def front_end(rig: Rig) -> Process:
    """Start a front-end that tells of its tasks; operations are soon forgotten."""
    rig.address = f"127.0.0.1:{free_port()}"
    return rig.start(
        ["-m", "tests.fuzz.front_end"],
        {
            "REDIS_URL": rig.redis.url,
            "SERVER_ADDRESS": rig.address,
            # A line for each call would fill the memory of whoever keeps them.
            "SERVER_LOG_LEVEL": "WARNING",
            "SERVER_OPERATION_TTL_S": "5",
        },
    )


def gateway(rig: Rig, within_s: float) -> tuple[Process, str]:
    """Start a gateway, soon tired of callers who say nothing; return it and its address."""
    address = f"127.0.0.1:{free_port()}"
    process = rig.start(
        ["-m", "gateway"],
        {
            "GATEWAY_ADDRESS": address,
            "GATEWAY_SERVER_ADDRESS": rig.address,
            "GATEWAY_LOG_LEVEL": "ERROR",
            "GATEWAY_CLIENT_TIMEOUT_S": "2",
        },
    )
    until_it_listens(address, within_s)
    return process, address


def until_it_listens(address: str, within_s: float) -> None:
    """Wait until somebody listens at an address, who logs nothing of it.

    Raises:
        TimeoutError: nobody does.
    """
    host, _, port = address.rpartition(":")
    ends_at = time.monotonic() + within_s
    while time.monotonic() < ends_at:
        try:
            socket.create_connection((host, int(port)), within_s).close()
        except OSError:
            time.sleep(PAUSE_S)
        else:
            return
    raise TimeoutError(f"nobody listens at {address}")
