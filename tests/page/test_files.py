"""Files of all kinds, and what the page makes of them."""

import pytest

from tests.integration.test_gateway import aside
from tests.page.browser import Page
from tests.page.photos import photo

IS_LOADED = "return [...document.querySelectorAll('img.picture')].map((img) => img.complete)"

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]


async def test_pictures_below_the_window_are_not_loaded(page: Page, address: str) -> None:
    page.open(address, width=1440)
    page.hand_over("drop", *(photo((n, 2, 3), f"{n}.png") for n in range(1, 61)))
    await aside(page.until, lambda: page.find("#summary").text == "60 of 60 labelled.")
    loaded = page.run(IS_LOADED)
    assert loaded[0]
    assert not any(loaded[-20:])
    page.run("document.querySelector('.result:last-child').scrollIntoView()")
    await aside(page.until, lambda: page.run(IS_LOADED)[-1])
