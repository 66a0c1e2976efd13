"""Cached view of the models and their workers, refreshed twice a second."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final

import structlog

from dispatch import keys
from dispatch.errors import (
    BrokerUnavailable,
    InvalidArgument,
    ModelLoading,
    ModelNotFound,
    NoWorker,
    OutcomeUnknown,
)
from dispatch.job_store import JobStore, ModelLook
from dispatch.link import Link
from server.ports import ModelView

log = structlog.get_logger()

REFRESH_S: Final = 0.5
DRAIN_HALF_LIFE_S: Final = 5.0
"""How fast the measured rate forgets."""


@dataclass(slots=True)
class _Rate:
    """Jobs that end per second, smoothed."""

    retired: int
    at: float
    per_s: float = 0.0

    def update(self, retired: int, now: float) -> None:
        elapsed = now - self.at
        if elapsed <= 0:
            return
        weight = 1 - 0.5 ** (elapsed / DRAIN_HALF_LIFE_S)
        # After Redis lost everything the totals begin again.
        latest = max(0, retired - self.retired) / elapsed
        self.per_s += weight * (latest - self.per_s)
        self.retired, self.at = retired, now


class Fleet:
    """Who is there, and whether a call for a model should be accepted."""

    def __init__(
        self,
        store: JobStore,
        link: Link,
        listen: Callable[[str], Awaitable[None]],
        listen_to_no_other: Callable[[Collection[str]], Awaitable[None]],
        *,
        default_model: str,
        no_worker_grace_s: float,
    ) -> None:
        """Know nothing yet; `run` looks.

        Args:
            store: where to look.
            link: whether Redis can be reached.
            listen: makes replies of a model arrive; called before the model is shown.
            listen_to_no_other: ends that for all models but these; called with all that are shown.
            default_model: what an empty name means; empty: the only model.
            no_worker_grace_s: how long calls are accepted after the last worker has gone.
        """
        self._store = store
        self._link = link
        self._listen = listen
        self._listen_to_no_other = listen_to_no_other
        self._default_model = default_model
        self._no_worker_grace_s = no_worker_grace_s
        self._views: dict[str, ModelView] = {}
        self._rates: dict[str, _Rate] = {}
        self._last_ready: dict[str, float] = {}
        self._is_fresh = False
        """Whether the last look succeeded."""

        self._told = ""
        self._change = asyncio.Event()
        link.on_change(self._notify)

    @property
    def is_current(self) -> bool:
        """Whether Redis can be reached now, and the view is that of the last look."""
        return self._link.is_up and self._is_fresh

    def models(self) -> list[ModelView]:
        """Return all models ever served, sorted by name, as they were seen last."""
        return [self._views[name] for name in sorted(self._views)]

    def listed(self) -> list[ModelView]:
        """Return all models ever served, sorted by name, as they are now.

        Raises:
            BrokerUnavailable: that cannot be known: the view may be empty, or hours old.
        """
        if not self.is_current:
            raise BrokerUnavailable("the broker cannot be reached")
        return self.models()

    def get(self, name: str) -> ModelView:
        """Return one model, as it was seen last.

        Raises:
            ModelNotFound: nobody ever served it.
            BrokerUnavailable: that cannot be known now.
        """
        view = self._views.get(name)
        if view is not None:
            return view
        if not self._is_fresh:
            raise BrokerUnavailable("the broker cannot be reached")
        raise ModelNotFound(name)

    def resolve(self, name: str) -> str:
        """Return the name of the model that a request means.

        Raises:
            ModelNotFound: nobody ever served it.
            InvalidArgument: it names none, and there are several.
            BrokerUnavailable: that cannot be known now.
        """
        wanted = name or self._default_model
        if wanted:
            return self.get(wanted).card.name
        # One that is gone does not make the question ambiguous.
        names = [each for each in self._views if self._is_around(each)] or list(self._views)
        if len(names) == 1:
            return names[0]
        if names:
            listed = ", ".join(sorted(names))
            raise InvalidArgument("model", f"several models are served, name one: {listed}")
        if not self._is_fresh:
            raise BrokerUnavailable("the broker cannot be reached")
        raise ModelNotFound("", "no model was ever served here")

    def check_can_answer(self, name: str) -> None:
        """Refuse calls that would only wait for a worker that is not there.

        Raises:
            ModelLoading: workers are starting.
            NoWorker: none is there, and was not for longer than the grace.
        """
        view = self.get(name)
        if self._may_be_ready(name):
            return
        if view.loading_workers > 0:
            raise ModelLoading(f"model {name!r} is being loaded", retry_after_s=2.0)
        raise NoWorker(f"no worker serves model {name!r} now", retry_after_s=5.0)

    def _may_be_ready(self, name: str) -> bool:
        is_recent = time.monotonic() - self._last_ready[name] < self._no_worker_grace_s
        return self._views[name].ready_workers > 0 or is_recent

    def _is_around(self, name: str) -> bool:
        return self._may_be_ready(name) or self._views[name].loading_workers > 0

    async def changed(self) -> None:
        """Wait until the view or `is_current` changes."""
        await self._change.wait()

    def _notify(self) -> None:
        # Wakes those who wait now; those who come later wait for the next change.
        self._change.set()
        self._change = asyncio.Event()

    async def run(self) -> None:
        """Refresh the view until cancelled."""
        while True:
            try:
                await self.refresh()
            except (BrokerUnavailable, OutcomeUnknown) as error:
                self._is_fresh = False
                self._link.lost()
                self._tell(str(error.__cause__ or error))
            else:
                self._told = ""
            await asyncio.sleep(REFRESH_S)

    def _tell(self, cause: str) -> None:
        # Such as a right that our user of Redis lacks: nobody else may run into it.
        if cause != self._told:
            log.warning("cannot look at the models", cause=cause)
        self._told = cause

    async def refresh(self) -> None:
        """Look once.

        Raises:
            BrokerUnavailable, OutcomeUnknown: the view stays as it was.
        """
        views = {}
        for name in await self._store.models():
            look = await self._store.look(name)
            if look is not None:
                await self._listen(name)
                views[name] = self._view(name, look)
        for name in self._views.keys() - views.keys():
            if self._may_come_back(name):
                views[name] = self._views[name]
        has_changed = views != self._views or not self._is_fresh
        self._views = views
        self._rates = {name: self._rates[name] for name in views}
        self._last_ready = {name: self._last_ready[name] for name in views}
        self._is_fresh = True
        if has_changed:
            self._notify()
        await self._listen_to_no_other(views)

    def _may_come_back(self, name: str) -> bool:
        """Whether a model that Redis does not know any more may have a worker that lives.

        A Redis that lost everything hears of it again within a second.
        """
        silent_s = time.monotonic() - self._last_ready[name]
        return self._views[name].ready_workers > 0 and silent_s < keys.WORKER_TTL_MS / 1000

    def _view(self, name: str, look: ModelLook) -> ModelView:
        now = time.monotonic()
        ready = [worker for worker in look.workers if worker.ready]
        # A model seen for the first time without a worker gets the grace as well:
        # this front-end may just be older than the workers that follow it.
        if ready or name not in self._last_ready:
            self._last_ready[name] = now
        rate = self._rates.setdefault(name, _Rate(look.retired_jobs, now))
        rate.update(look.retired_jobs, now)
        return ModelView(
            card=look.card,
            ready_workers=len(ready),
            loading_workers=len(look.workers) - len(ready),
            live_versions=tuple(sorted({worker.model_version for worker in ready})),
            queue_depth=look.queued_jobs,
            queued_operations=look.queued_operations,
            drain_per_s=rate.per_s if rate.per_s > 0.01 else None,  # noqa: PLR2004 - one per 100 s
        )
