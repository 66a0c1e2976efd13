"""Whether a key is one, asked before a body is collected for whoever shows it."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from client.messages import Messages
from gateway.caller import Caller, Key
from gateway.connection import Connection, answer

KNOWN_S: Final = 300.0
"""How long a key counts as good here, seconds. The front-end looks at it with each call anyhow."""

MAX_KNOWN: Final = 1024
"""Most keys that are kept in mind; those that were asked about first are forgotten first."""


class KeyCheck:
    """Lets those by whom the front-end knows.

    Args:
        upstream: the front-end.
        is_needed: whether to look at all; without keys there are none to tell apart.
        now: monotonic clock, seconds.
    """

    def __init__(
        self, upstream: Messages, *, is_needed: bool, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._upstream = upstream
        self._is_needed = is_needed
        self._now = now
        self._known_until_s: OrderedDict[Key, float] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, caller: Caller, connection: Connection) -> bool:
        """Return if the caller's key is one that the front-end knows, and whether it was asked.

        Any key may list the models, and that costs the front-end next to nothing: it
        knows them by heart. Whether the key may do more is said when it does.

        Raises:
            CallerGone: nobody waits for it any more.
            DespachoError: what the front-end said of the key, or why it did not answer.
        """
        if not self._is_needed or self._is_known(caller.key):
            return False
        answer(self._upstream.list_models(caller.terms()), connection)
        self._remember(caller.key)
        return True

    def _is_known(self, key: Key) -> bool:
        with self._lock:
            return self._known_until_s.get(key, 0.0) > self._now()

    def _remember(self, key: Key) -> None:
        with self._lock:
            self._known_until_s[key] = self._now() + KNOWN_S
            self._known_until_s.move_to_end(key)
            if len(self._known_until_s) > MAX_KNOWN:
                self._known_until_s.popitem(last=False)
