"""Proof that everything works: one real prediction, through the public API."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from client import PredictionResult
from client.errors import (
    AccessDenied,
    DeadlineExceeded,
    DespachoError,
    NotFound,
    Retryable,
    Unreachable,
)
from deploy import access
from deploy.errors import StackError
from deploy.state import ROOT

SAMPLE: Final = ROOT / "docs" / "examples" / "coffee.jpg"
START_S: Final = 240.0
"""How long the first start may take: the model is prepared, TensorFlow loads."""

ATTEMPT_S: Final = 5.0
PAUSE_S: Final = 0.3
REMARK_S: Final = 15.0
"""How often the person who waits is told why."""


def wait_for_prediction(
    address: str, check: Callable[[], None], *, limit_s: float = START_S
) -> PredictionResult:
    """Label the sample photo as soon as that works.

    Args:
        address: of the front-end.
        check: raises StackError once there is no point in waiting longer.
        limit_s: longest wait.

    Raises:
        StackError: it does not work in time.
    """
    give_up_at = time.monotonic() + limit_s
    remark_at = time.monotonic() + REMARK_S
    while True:
        check()
        try:
            # A new client each time: an old one rests for seconds before it connects again.
            with access.client(address) as client:
                return client.predict(Path(SAMPLE), timeout_s=ATTEMPT_S)
        except (Retryable, DeadlineExceeded, NotFound) as error:
            reason = str(error)
            if is_distrust(error):
                raise StackError(
                    f"no encrypted connection to {address}: its certificate must name that host"
                    f" and be signed by one in DESPACHO_TLS_CA ({reason})"
                ) from error
        except DespachoError as error:
            # "Name one of several": those that were served before are soon forgotten.
            if error.field != "model":
                raise StackError(f"the sample photo cannot be labelled: {error}") from error
            reason = str(error)
        if time.monotonic() > give_up_at:
            raise StackError(f"no prediction within {limit_s:.0f} s: {reason}")
        if time.monotonic() > remark_at:
            print(f"  still waiting: {reason}", flush=True)
            remark_at += REMARK_S
        time.sleep(PAUSE_S)


def is_distrust(error: DespachoError) -> bool:
    """Say whether the certificate of the server is no good, which waiting does not mend."""
    return isinstance(error, Unreachable) and "CERTIFICATE_VERIFY_FAILED" in str(error)


def wait_for_workers(
    address: str,
    before: Mapping[str, int],
    more: int,
    check: Callable[[], None],
    *,
    limit_s: float = START_S,
) -> None:
    """Wait until so many more workers of one model are ready.

    Args:
        address: of the front-end.
        before: what `live_workers` said before they were started.
        more: how many were started.
        check: raises StackError once there is no point in waiting longer.
        limit_s: longest wait.

    Raises:
        StackError: they are not in time, or `check` says so.
    """
    give_up_at = time.monotonic() + limit_s
    while True:
        check()
        ready = live_workers(address)
        # Of which model is not known here. Those of the others come and go by themselves, so
        # neither their number nor the sum of all says anything.
        come = max((count - before.get(name, 0) for name, count in ready.items()), default=0)
        if come >= more:
            return
        if time.monotonic() > give_up_at:
            raise StackError(f"{max(0, come)} of {more} workers are ready after {limit_s:.0f} s")
        time.sleep(PAUSE_S)


def live_workers(address: str) -> dict[str, int]:
    """Return how many workers of each model are ready; of none if nobody says.

    Workers may have been started by hand, too.

    Raises:
        StackError: whoever asks may not know.
    """
    try:
        with access.client(address) as client:
            return {model.name: model.live_workers for model in client.models(timeout_s=ATTEMPT_S)}
    except AccessDenied as error:
        raise StackError(
            f"the front-end does not say how many workers are ready: {error}"
        ) from error
    except DespachoError:
        return {}
