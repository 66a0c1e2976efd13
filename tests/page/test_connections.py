"""What the page asks for no longer than somebody wants it."""

import time

import pytest

from tests.gateway import gateway
from tests.integration.test_gateway import aside
from tests.page.browser import Page
from tests.page.photos import RED, first_labels, photo
from tests.stack import Stack

INFERENCE_S = 2.5
MOST_CONNECTIONS = 6
"""How many a browser has to one server."""

RECORD_PAUSES = """
window.pauses = [];
const real = window.setTimeout;
window.setTimeout = (then, pause) => { window.pauses.push(pause); return real(then, pause); };
"""

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]


async def test_cleared_photos_are_not_labelled(page: Page, own_stack: Stack) -> None:
    own_stack.start_worker(inference_ms=1000 * INFERENCE_S, batch=1)
    await own_stack.until_ready()
    before = own_stack.inferred().total()
    with gateway(own_stack.address) as web:
        page.open(web.address, width=1440)
        page.hand_over("drop", *(photo((n, 2, 3), f"{n}.png") for n in range(1, 13)))
        await own_stack.until(lambda: own_stack.entries() == 4, 10)
        page.find("#clear").click()
        cleared_at = time.monotonic()
        page.hand_over("drop", photo(RED, "red.png"))
        await aside(page.until, lambda: first_labels(page) == ["red"])
    # It waits for the one that was with the model already, and for none behind it.
    assert time.monotonic() - cleared_at < 3 * INFERENCE_S
    assert own_stack.inferred().total() - before == 2


async def test_hidden_tabs_leave_their_connections_to_others(page: Page, address: str) -> None:
    first = page.driver.current_window_handle
    try:
        for _ in range(MOST_CONNECTIONS):
            page.driver.switch_to.new_window("tab")
            page.open(address, width=1440)
        page.hand_over("drop", photo(RED, "red.png"))
        await aside(page.until, lambda: first_labels(page) == ["red"])
        # Those that are seen again have live figures again.
        page.driver.switch_to.window(page.driver.window_handles[1])
        await aside(page.until, page.is_live)
    finally:
        for handle in page.driver.window_handles:
            if handle != first:
                page.driver.switch_to.window(handle)
                page.driver.close()
        page.driver.switch_to.window(first)


@pytest.mark.parametrize(
    ("settings", "words", "pause_ms"),
    [({"require_key": True}, "API key", 30_000), ({"max_stats_listeners": 0}, "listening", 5_000)],
)
async def test_who_may_not_listen_asks_no_sooner_than_told(
    page: Page, stack: Stack, settings: dict[str, object], words: str, pause_ms: int
) -> None:
    with gateway(stack.address, **settings) as web, page.beginning_with(RECORD_PAUSES):
        page.load(web.address, width=1440)
        await aside(page.until, lambda: words in page.find("#live-state").text)
        assert pause_ms in page.run("return window.pauses")
