"""What operators watch, as a test says it is."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from dispatch import errors
from server.samples import Sample


class FakeStats:
    """Tells what a test says was seen."""

    def __init__(self) -> None:
        self.seen: list[Sample] = []
        self.left = asyncio.Event()
        """Set when one who watched has gone."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.left.set()

    async def samples(self) -> list[Sample]:
        if not self.seen:
            raise errors.BrokerUnavailable("the broker cannot be reached")
        return self.seen

    async def news(self) -> None:
        """Come soon."""
