"""The page while there is no model to choose, or none that it may know of."""

from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.credentials import Keys as ApiKeys
from tests.gateway import gateway
from tests.integration.test_gateway import aside
from tests.page.browser import Page
from tests.page.photos import RED, first_labels, live_said, photo
from tests.stack import Stack

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]


def chosen(page: Page) -> str:
    return str(page.run("return document.getElementById('model').value"))


def drop_red(page: Page) -> None:
    page.hand_over("drop", photo(RED, "red.png"))


async def test_a_photo_waits_for_the_first_model(page: Page, own_stack: Stack) -> None:
    with gateway(own_stack.address) as web:
        page.load(web.address, width=1440)
        drop_red(page)
        await aside(
            page.until, lambda: "No model is served yet; trying" in page.find("#results").text
        )
        own_stack.start_worker()
        await aside(page.until, lambda: first_labels(page) == ["red"])
        await aside(page.until, lambda: "has come" in live_said(page))


async def test_a_photo_waits_for_redis(page: Page, stack: Stack) -> None:
    with gateway(stack.address) as web:
        stack.redis.pause()
        try:
            await stack.until(lambda: web.call("GET", "/v1/models").status == 503, 10)
            page.load(web.address, width=1440)
            drop_red(page)
            await aside(page.until, lambda: "trying again" in page.find("#results").text)
        finally:
            stack.redis.resume()
        await aside(page.until, lambda: first_labels(page) == ["red"])


async def test_without_a_key_a_photo_is_told_so(
    page: Page, own_stack: Stack, tmp_path: Path
) -> None:
    keys = ApiKeys(tmp_path / "keys.toml")
    key = keys.add("person", "predict")
    own_stack.start_server(api_keys_file=keys.path)
    with gateway(own_stack.address) as web:
        page.load(web.address, width=1440)
        drop_red(page)
        await aside(page.until, lambda: "CREDENTIALS_MISSING" in page.find("#results").text)
        page.find(".key summary").click()
        page.find("#key").send_keys(key, Keys.TAB)
        await aside(page.until, lambda: "No model is served yet" in page.find("#model").text)
        # Who may not see the live figures learns of a model, too.
        own_stack.start_worker()
        await aside(page.until, lambda: bool(chosen(page)))
        page.find(".result button").click()
        await aside(page.until, lambda: first_labels(page) == ["red"])
