"""Take the pictures of docs/images: python -m tests.page.screenshots PHOTO...

Starts a system with the bundled model, keeps it busy, and looks at it with `despacho top` and with
the browser of the tests.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Final, Literal

from tests.gateway import gateway
from tests.page import top_picture
from tests.page.browser import Page, browser
from tests.page.load import load
from tests.redis_server import RedisServer
from tests.stack import Stack

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"

PICTURES: Final[tuple[tuple[int, Literal["light", "dark"]], ...]] = (
    (1440, "light"),
    (1440, "dark"),
    (360, "light"),
    (360, "dark"),
)
MODEL: Final = "efficientnet-lite0"
WORKERS: Final = 2
READY_S: Final = 120.0
WORKER: Final = """
import runpy, socket
socket.gethostname = lambda: "worker"
runpy.run_module("worker", run_name="__main__")
"""
"""A worker whose name, which the page shows, does not say where the pictures were taken."""

POINTS: Final = "return document.querySelector('.curve polyline').points.length"
MIN_POINTS: Final = 20


def main() -> None:
    """Take all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path)
    asyncio.run(with_system([path.resolve() for path in parser.parse_args().photos]))


async def with_system(photos: list[Path]) -> None:
    """Start a system, take the pictures, and stop it."""
    with tempfile.TemporaryDirectory() as folder:
        redis = RedisServer(Path(folder))
        redis.start()
        stack = Stack(redis, Path(folder))
        try:
            stack.model = MODEL
            stack.start_server()
            for _ in range(WORKERS):
                stack.start(["-c", WORKER], {"REDIS_URL": redis.url, "WORKER_PROCESSES": "1"})
            await stack.until_ready(WORKERS, READY_S)
            async with load(stack.address, photos[:1], callers=24, operations=3000):
                await asyncio.to_thread(top_picture.draw, stack.address, IMAGES / "top.svg")
            async with load(stack.address, photos[:1], callers=2):
                await asyncio.to_thread(take_all, stack.address, photos)
        finally:
            await stack.close()
            redis.stop()


def take_all(server_address: str, photos: list[Path]) -> None:
    """Take the pictures of a system that runs, or starts."""
    with gateway(server_address) as web, browser() as page:
        for width, scheme in PICTURES:
            page.open(web.address, width=width, scheme=scheme, limit_s=READY_S)
            page.until(lambda: bool(page.all(".badge.ready")), READY_S)
            page.choose(photos)
            page.until(lambda: not page.all(".result[data-state=waiting]"), READY_S)
            # Until there is a curve to see; by then the photos are in the figures, too.
            page.until(lambda: page.run(POINTS) >= MIN_POINTS, READY_S)
            take(page, IMAGES / f"page-{width}-{scheme}.png", width)


def take(page: Page, path: Path, width: int) -> None:
    """Take one picture, as high as the page is."""
    page.resize(width, int(page.run("return document.documentElement.scrollHeight")))
    path.parent.mkdir(exist_ok=True)
    if not page.driver.save_screenshot(str(path)):
        raise OSError(f"cannot write {path}")


if __name__ == "__main__":
    main()
