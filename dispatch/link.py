"""Whether Redis can be reached, as far as this process knows."""

import asyncio


class Link:
    """A flag that many read, any broken connection lowers, and one task raises again."""

    def __init__(self) -> None:
        self.is_up = False
        self._lowered = asyncio.Event()
        self._changed = asyncio.Event()

    def lost(self) -> None:
        """Say that a connection broke."""
        self._lowered.set()
        if self.is_up:
            self.is_up = False
            self._notify()

    def restored(self) -> None:
        """Say that Redis answered after a break."""
        self._lowered.clear()
        if not self.is_up:
            self.is_up = True
            self._notify()

    async def changed(self) -> None:
        """Wait until the flag changes."""
        await self._changed.wait()

    def _notify(self) -> None:
        # Wakes those who wait now; those who come later wait for the next change.
        self._changed.set()
        self._changed = asyncio.Event()
