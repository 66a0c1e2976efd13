"""Ends operations whose time is over while no worker is there to notice."""

import asyncio
from typing import Final

import structlog

from dispatch.errors import BrokerUnavailable, OutcomeUnknown
from dispatch.operation_store import OperationStore
from server.ports import Fleet

log = structlog.get_logger()

PERIOD_S: Final = 10.0


class OverdueOperations:
    """Looks now and then; many front-ends may."""

    def __init__(self, store: OperationStore, fleet: Fleet) -> None:
        self._store = store
        self._fleet = fleet

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            for view in self._fleet.models():
                try:
                    await self._store.end_overdue(view.card.name)
                except (BrokerUnavailable, OutcomeUnknown):
                    pass  # the writer knows, and reconnects; or this model alone is refused
                except Exception:  # one model's keys must not end the process, again and again
                    log.exception("cannot end overdue operations", model=view.card.name)
