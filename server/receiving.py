"""How much callers have sent that is not waited for yet: uploads in progress, batches, submissions.

`pending.py` counts the images that wait for a reply. These are counted apart, so
that slow uploads never take the room of those.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from dispatch.errors import QueueFull


class Receiving:
    """What all calls together hold.

    Args:
        max_bytes: most of it. One call alone may hold more, since a limit below
            the largest image would otherwise refuse it for ever.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """Count what one call holds while the context lasts."""
        share = Share(self)
        try:
            yield share
        finally:
            self._bytes -= share.size_bytes

    def check(self, share: "Share", more_bytes: int) -> None:
        """Accept that a call holds more.

        Raises:
            QueueFull: there is no room for that now.
        """
        others_bytes = self._bytes - share.size_bytes
        if others_bytes and self._bytes + more_bytes > self._max_bytes:
            raise QueueFull(
                "server/receiving", "this server is receiving as many bytes of images as it may"
            )

    def add(self, more_bytes: int) -> None:
        """Count more; a share does it."""
        self._bytes += more_bytes


class Share:
    """What one call holds."""

    def __init__(self, receiving: Receiving) -> None:
        self._receiving = receiving
        self.size_bytes = 0
        """How much it is."""

    def check(self, more_bytes: int) -> None:
        """Say whether that much more would be accepted now.

        Raises:
            QueueFull: it would not.
        """
        self._receiving.check(self, more_bytes)

    def add(self, more_bytes: int) -> None:
        """Hold more.

        Raises:
            QueueFull: there is no room; nothing was changed.
        """
        self._receiving.check(self, more_bytes)
        self._receiving.add(more_bytes)
        self.size_bytes += more_bytes
