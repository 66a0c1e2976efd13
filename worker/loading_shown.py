"""Shows a model as loading while its engine is still to be chosen."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dispatch.work_queue import WorkQueue
from worker.in_hand import InHand
from worker.keeper import Keeper
from worker.model_spec import ModelSpec
from worker.settings import WorkerSettings
from worker.work_done import WorkDone

JOIN_S: Final = 5.0
"""How long the last word to Redis may take."""


@contextmanager
def loading_shown(settings: WorkerSettings, spec: ModelSpec, name: str) -> Iterator[None]:
    """Announce a worker of this name while inside, if its engine is `auto`.

    To measure engines takes a minute, and callers should be told to come back, not that
    there is no such model. The worker itself announces what was chosen, under the same name.

    Args:
        settings: the knobs.
        spec: the model as it is before.
        name: of the worker.
    """
    if spec.engine != "auto":
        yield
        return
    card = spec.card(settings.max_batch_size)
    queue = WorkQueue(settings.redis_url, card.name, name)
    keeper = Keeper(queue, InHand(max_jobs=0, max_bytes=0), WorkDone(), card)
    thread = threading.Thread(target=keeper.run, name="loading", daemon=True)
    thread.start()
    try:
        yield
    finally:
        keeper.stop()
        thread.join(JOIN_S)
        queue.close()
