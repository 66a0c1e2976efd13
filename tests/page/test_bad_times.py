"""The page while the line is slow or the system away."""

import pytest

from deploy.address import free_port
from tests.chaos.proxy import Proxy
from tests.gateway import Web, gateway
from tests.integration.test_gateway import aside
from tests.page.browser import Page
from tests.page.photos import large, photo
from tests.stack import Stack

COUNT_REQUESTS = """
window.sent = 0;
const real = window.fetch;
window.fetch = (path, options) => {
  if (path.includes(":predict")) window.sent += 1;
  return real(path, options);
};
"""

SILENCE_LIMIT_S = 30.0
"""The page waits half of it for a sign of life."""

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


def cut(line: Proxy) -> None:
    line.switch(free_port())
    line.drop()


async def test_a_gateway_that_is_away_for_a_moment_costs_no_photo(page: Page, stack: Stack) -> None:
    with gateway(stack.address, threads=24) as web, Proxy(port_of(web)) as line:
        page.open(f"127.0.0.1:{line.port}", width=1440)
        page.run(COUNT_REQUESTS)
        cut(line)
        page.hand_over("drop", *(photo((n, 2, 3), f"{n}.png") for n in range(1, 21)))
        # Those that are sent wait together, as the first one to fail was told.
        await aside(page.until, lambda: page.run("return window.sent") >= 12)
        assert len(page.all(".result[data-state=waiting]")) == 20
        line.switch(port_of(web))
        await aside(page.until, lambda: page.find("#summary").text == "20 of 20 labelled.")


async def test_live_figures_come_again_after_their_line_died_silently(
    page: Page, stack: Stack
) -> None:
    with gateway(stack.address, threads=24) as web, Proxy(port_of(web)) as line:
        page.open(f"127.0.0.1:{line.port}", width=1440)
        assert line.freeze()
        await aside(page.until, lambda: not page.is_live())
        await aside(page.until, page.is_live, SILENCE_LIMIT_S)


async def test_all_that_failed_is_tried_again_with_one_button(page: Page, stack: Stack) -> None:
    with gateway(stack.address, threads=24) as web, Proxy(port_of(web)) as line:
        page.open(f"127.0.0.1:{line.port}", width=360)
        page.run("const now = Date.now; window.ahead = 0; Date.now = () => now() + window.ahead")
        cut(line)
        page.hand_over("drop", *(photo((n, 2, 3), f"{n}.png") for n in range(1, 5)))
        await aside(page.until, lambda: page.find("#results").text.count("trying again") == 4)
        page.run("window.ahead = 61_000")
        await aside(page.until, lambda: page.find("#summary").text == "0 of 4 labelled, 4 failed.")
        assert page.overflow() == 0
        line.switch(port_of(web))
        page.find("#all-again").click()
        await aside(page.until, lambda: page.find("#summary").text == "4 of 4 labelled.")
        assert not page.find("#all-again").is_displayed()


REFUSE_ONCE = """
const real = window.fetch;
let refused = false;
window.fetch = (path, options) => {
  if (refused || !path.includes(":predict")) return real(path, options);
  refused = true;
  const problem = JSON.stringify({ detail: "Too much in too short a time.", retry_after: 3600 });
  const headers = { "Content-Type": "application/problem+json" };
  return Promise.resolve(new Response(problem, { status: 429, headers }));
};
"""


async def test_a_photo_that_is_given_up_holds_up_no_other(page: Page, stack: Stack) -> None:
    with gateway(stack.address) as web:
        page.open(web.address, width=1440)
        page.run(REFUSE_ONCE)
        page.hand_over("drop", *(photo((n, 2, 3), f"{n}.png") for n in range(1, 7)))
        await aside(page.until, lambda: page.find("#summary").text == "5 of 6 labelled, 1 failed.")
