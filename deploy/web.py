"""Proof that the gateway works: it says that it does."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Final

from deploy.errors import StackError

START_S: Final = 30.0
ATTEMPT_S: Final = 3.0
PAUSE_S: Final = 0.2

# No proxy of the environment: it is on this machine.
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def wait_for_gateway(address: str, check: Callable[[], None]) -> None:
    """Wait until the gateway reaches a front-end that can take images.

    Args:
        address: of the gateway.
        check: raises StackError once there is no point in waiting longer.

    Raises:
        StackError: it does not in time.
    """
    give_up_at = time.monotonic() + START_S
    while True:
        check()
        reason = _trouble(address)
        if reason is None:
            return
        if time.monotonic() > give_up_at:
            raise StackError(f"the gateway is not ready within {START_S:.0f} s: {reason}")
        time.sleep(PAUSE_S)


def _trouble(address: str) -> str | None:
    """Return why the gateway is not ready; None: it is."""
    try:
        with _OPENER.open(f"http://{address}/readyz", timeout=ATTEMPT_S):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode(errors="replace")
    except OSError as error:
        return str(error)
