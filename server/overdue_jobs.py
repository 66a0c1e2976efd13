"""Ends jobs whose time is over while nobody is there who should notice."""

import asyncio
from typing import Final

import structlog

from dispatch.errors import BrokerUnavailable, OutcomeUnknown
from dispatch.job_store import JobStore
from dispatch.operation_store import OperationStore
from server.ports import Fleet

log = structlog.get_logger()

PERIOD_S: Final = 10.0


class OverdueJobs:
    """Looks now and then; many front-ends may.

    Operations that no worker takes; and calls whose front-end is gone, too.
    """

    def __init__(self, calls: JobStore, operations: OperationStore, fleet: Fleet) -> None:
        self._stores = (calls, operations)
        self._fleet = fleet

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            for view in self._fleet.models():
                for store in self._stores:
                    try:
                        await store.end_overdue(view.card.name)
                    except (BrokerUnavailable, OutcomeUnknown):
                        pass  # the writer knows, and reconnects; or this model alone is refused
                    except Exception:  # one model's keys must not end the process, again and again
                        log.exception("cannot end overdue jobs", model=view.card.name)
