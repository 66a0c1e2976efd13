"""Callers who keep a system busy while its picture is taken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from client import AsyncClient, DespachoError, Priority

PAUSE_S: Final = 2.0
"""Between two bad images, seconds."""


@asynccontextmanager
async def load(
    server_address: str, photos: list[Path], *, callers: int, operations: int = 0
) -> AsyncIterator[None]:
    """Have photos labelled while inside.

    Args:
        server_address: of a front-end.
        photos: which.
        callers: how many at a time; every fourth is in a hurry.
        operations: how many are submitted before, for later.
    """
    images = [photo.read_bytes() for photo in photos]
    async with AsyncClient(server_address) as client:
        submitting = [client.submit(images[n % len(images)]) for n in range(operations)]
        await asyncio.gather(*submitting)
        tasks = [
            asyncio.create_task(_call(client, images, is_urgent=n % 4 == 0)) for n in range(callers)
        ]
        tasks.append(asyncio.create_task(_err(client)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _call(client: AsyncClient, images: list[bytes], *, is_urgent: bool) -> None:
    priority = Priority.HIGH if is_urgent else Priority.NORMAL
    while True:
        for image in images:
            with suppress(DespachoError):
                await client.predict(image, priority=priority)


async def _err(client: AsyncClient) -> None:
    while True:
        with suppress(DespachoError):
            await client.predict(b"These are notes, and no photo.")
        await asyncio.sleep(PAUSE_S)
