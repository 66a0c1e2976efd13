"""Whether Redis can be reached, as far as this process knows."""

from collections.abc import Callable


class Link:
    """A flag that many read, any broken connection lowers, and one task raises again."""

    def __init__(self) -> None:
        self.is_up = False
        self._on_change: list[Callable[[], None]] = []

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the flag changes."""
        self._on_change.append(callback)

    def lost(self) -> None:
        """Say that a connection broke."""
        self._set(is_up=False)

    def restored(self) -> None:
        """Say that Redis answers again."""
        self._set(is_up=True)

    def _set(self, *, is_up: bool) -> None:
        if self.is_up != is_up:
            self.is_up = is_up
            for callback in self._on_change:
                callback()
