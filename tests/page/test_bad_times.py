"""The page while the line is slow or the system away."""

import pytest

from tests.chaos.proxy import Proxy
from tests.gateway import Web, gateway
from tests.integration.test_gateway import aside
from tests.page.browser import Page
from tests.page.photos import large
from tests.stack import Stack

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]


def port_of(web: Web) -> int:
    return int(web.address.rpartition(":")[2])


async def test_photos_over_a_slow_line_take_their_time(page: Page, stack: Stack) -> None:
    photos = [(f"{n}.png", "image/png", large((n, 2, 3), 2_000_000)) for n in range(1, 5)]
    with gateway(stack.address, default_timeout_s=2) as web, Proxy(port_of(web)) as line:
        page.open(f"127.0.0.1:{line.port}", width=1440)
        line.delay(0.1)  # for each 64 KiB: 3 s for a photo
        page.hand_over("drop", *photos)
        await aside(page.until, lambda: "4 of 4" in page.find("#summary").text)
