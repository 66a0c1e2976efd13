"""The page in a real Chromium, before a real front-end and workers."""

import json
import re
import time
from itertools import pairwise
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from gateway.cors import ORIGIN_NOT_ALLOWED
from tests.credentials import Keys as ApiKeys
from tests.gateway import gateway
from tests.integration.test_gateway import aside
from tests.page.browser import Page
from tests.page.photos import BLUE, GREEN, RED, first_labels, live_said, photo, said
from tests.stack import Stack, image_of

NOTICED_S = 5.0
WIDTHS = (360, 1440)

SEES = "return document.activeElement.matches('#shot[open] [value=take]:enabled')"
IS_LOOKING = "return document.querySelector('#shot video').srcObject !== null"

# As behind a proxy that puts another name into `Host`.
FROM_ELSEWHERE = f"""
window.fetch = async () => new Response({json.dumps(json.dumps(ORIGIN_NOT_ALLOWED.body("")))},
  {{ status: 403, headers: {{ "Content-Type": "application/problem+json" }} }});
"""

WITHOUT_STORAGE = """
const denied = { get() { throw new DOMException("Access is denied.", "SecurityError"); } };
Object.defineProperty(window, "sessionStorage", denied);
"""

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest.mark.parametrize("width", WIDTHS)
async def test_dropped_photos_show_labels_bars_and_times(
    page: Page, address: str, width: int
) -> None:
    page.open(address, width=width)
    page.hand_over("drop", photo(RED, "red.png"), photo(GREEN, "green.png"))
    page.until(lambda: page.find("#summary").text == "2 of 2 labelled.")
    assert first_labels(page) == ["red", "green"]
    assert page.find(".result .percent").text == "78.4 %"
    bar, filled = page.find(".result .bar"), page.find(".result .bar span")
    assert filled.size["width"] / bar.size["width"] == pytest.approx(0.784, abs=0.02)
    words = page.find(".result .parts").text
    assert re.findall(r"(queue|decode|inference|rest) \d", words) == [
        *("queue", "decode", "inference", "rest")
    ]
    assert "in a batch of" in page.find(".result .timing").text
    # What was said last, for those who do not see it.
    assert re.fullmatch(r"(red|green)\.png: (red|green), 78\.4 %", said(page))
    assert page.overflow() == 0
    assert page.complaints() == []


@pytest.mark.parametrize("width", WIDTHS)
async def test_it_works_by_keyboard_alone(
    page: Page, address: str, width: int, tmp_path: Path
) -> None:
    page.open(address, width=width)
    page.run(
        "document.getElementById('files').addEventListener('click', (event) => {"
        " event.preventDefault(); window.asked = true; })"
    )
    tab_to(page, "choose")
    page.press(Keys.ENTER)
    # The dialogue of the system opens here; in it one chooses:
    assert page.run("return window.asked")
    path = tmp_path / "blue.png"
    path.write_bytes(image_of(BLUE))
    page.choose([path])
    page.until(lambda: first_labels(page) == ["blue"])
    tab_to(page, "clear")
    page.press(Keys.SPACE)
    page.until(lambda: not page.all(".result"))
    assert page.run("return document.activeElement.id") == "choose"


def tab_to(page: Page, name: str) -> None:
    """Go to an element with the tabulator, and see that one can see it."""
    for _ in range(15):
        page.press(Keys.TAB)
        if page.run("return document.activeElement.id") == name:
            assert (
                page.run("return getComputedStyle(document.activeElement).outlineStyle") != "none"
            )
            return
    raise AssertionError(f"the tabulator does not lead to {name}")


async def test_a_photo_is_pasted(page: Page, address: str) -> None:
    page.open(address, width=1440)
    page.hand_over("paste", photo(GREEN, ""))
    page.until(lambda: first_labels(page) == ["green"])


async def test_a_photo_is_taken_with_the_camera_of_a_desktop(page: Page, address: str) -> None:
    page.open(address, width=1440)
    tab_to(page, "take")
    page.press(Keys.ENTER)
    page.until(lambda: bool(page.run(SEES)))
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.run(IS_LOOKING))
    assert not page.all(".result")
    assert page.run("return document.activeElement.id") == "take"
    page.press(Keys.ENTER)
    page.until(lambda: bool(page.run(SEES)))
    page.press(Keys.ENTER)
    # The photo is there, and too large for the workers of this test.
    page.until(lambda: "the image has 1280 x 720" in page.find("#results").text)
    assert page.find(".result h3").text == "from the camera.jpg"
    assert not page.run(IS_LOOKING)
    assert page.complaints() == []


async def test_a_camera_that_is_not_there_is_told(page: Page, address: str) -> None:
    page.open(address, width=1440)
    page.run("navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error('none'))")
    page.find("#take").click()
    page.until(lambda: "There is no camera" in page.find("#camera-problem").text)
    assert not page.find("#shot").is_displayed()


async def test_a_phone_takes_the_photo_in_its_own_way(page: Page, address: str) -> None:
    page.open(address, width=360)
    page.run(
        "document.getElementById('camera').addEventListener('click', (event) => {"
        " event.preventDefault(); window.asked = true; })"
    )
    page.find("#take").click()
    assert page.run("return window.asked")
    assert not page.find("#shot").is_displayed()


async def test_what_is_no_image_says_why_and_can_be_tried_again(page: Page, address: str) -> None:
    page.open(address, width=360)
    page.hand_over("drop", ("notes.png", "image/png", b"no image at all"), photo(RED, "red.png"))
    page.until(lambda: page.find("#summary").text == "1 of 2 labelled, 1 failed.")
    failed = page.find(".result[data-state=failed]")
    assert "IMAGE_FORMAT_UNSUPPORTED" in failed.text
    assert first_labels(page) == ["red"]
    page.find(".result[data-state=failed] button").click()
    page.until(lambda: len(page.all(".result[data-state=failed]")) == 1)
    assert page.overflow() == 0


async def test_many_photos_are_all_answered(page: Page, address: str) -> None:
    page.open(address, width=1440)
    page.hand_over("drop", *(photo((10 * n, 0, 1), f"{n}.png") for n in range(1, 21)))
    page.until(lambda: page.find("#summary").text == "20 of 20 labelled.")


@pytest.mark.parametrize("width", WIDTHS)
async def test_everything_has_a_name_for_those_who_do_not_see_it(
    page: Page, address: str, width: int
) -> None:
    page.open(address, width=width)
    page.find(".key summary").click()
    shown = [one for one in page.all("button, input, select, summary, a") if one.is_displayed()]
    assert len(shown) >= 7
    for element in shown:
        assert element.accessible_name, element.get_attribute("outerHTML")
    assert page.find("html").get_attribute("lang") == "en"
    # In one step: live figures are drawn anew every second, with a heading.
    headings = 'return [...document.querySelectorAll("h1, h2, h3, h4")].map(h => +h.tagName[1])'
    levels = page.run(headings)
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


async def test_light_and_dark_differ(page: Page, address: str) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        page.open(address, width=1440, scheme=scheme)
        grounds.add(page.run("return getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


async def test_a_killed_worker_is_shown_in_time(page: Page, address: str, stack: Stack) -> None:
    page.open(address, width=1440)
    doomed = stack.start_worker()
    await stack.until_ready(2)
    await aside(page.until, lambda: len(page.all(".workers li[data-state=ready]")) == 2)
    doomed.kill()
    killed_at = time.monotonic()
    await aside(page.until, lambda: len(page.all(".workers li[data-state=gone]")) == 1)
    assert time.monotonic() - killed_at < NOTICED_S
    assert len(page.all(".workers li[data-state=ready]")) == 1
    assert "is gone" in live_said(page)


async def test_a_key_is_asked_for_and_sent(page: Page, stack: Stack, tmp_path: Path) -> None:
    keys = ApiKeys(tmp_path / "keys.toml")
    key = keys.add("person", "predict", "admin")
    address = stack.address
    stack.start_server(api_keys_file=keys.path)
    try:
        with gateway(stack.address, threads=16) as web:
            await aside(sends_a_key, page, web.address, key)
    finally:
        stack.address = address


def sends_a_key(page: Page, address: str, key: str) -> None:
    page.load(address, width=360)
    page.until(lambda: "need an API key" in page.find("#live-state").text)
    assert page.overflow() == 0
    page.find(".key summary").click()
    page.find("#key").send_keys(key, Keys.TAB)
    page.until(page.is_live)
    page.until(lambda: bool(page.find("#model").get_attribute("value")))
    page.hand_over("drop", photo(RED, "red.png"))
    page.until(lambda: first_labels(page) == ["red"])


async def test_a_refused_photo_shows_what_to_do(page: Page, address: str) -> None:
    page.open(address, width=360)
    page.run(FROM_ELSEWHERE)
    page.hand_over("drop", photo(RED, "red.png"))
    page.until(lambda: "GATEWAY_CORS_ORIGINS" in page.find(".result .hint").text)
    assert page.overflow() == 0


async def test_what_cannot_be_a_key_is_refused_by_name(page: Page, address: str) -> None:
    page.open(address, width=360)
    page.find(".key summary").click()
    page.find("#key").send_keys("\u2022\u2022\u2022", Keys.TAB)
    assert "none has the character “\u2022”" in page.find("#key-problem").text
    assert page.overflow() == 0
    page.hand_over("drop", photo(RED, "red.png"))
    page.until(lambda: first_labels(page) == ["red"])
    page.find("#key").clear()
    page.press(Keys.TAB)
    page.until(lambda: not page.find("#key-problem").is_displayed())


async def test_a_page_that_may_keep_nothing_works(page: Page, address: str) -> None:
    # As where site data is blocked.
    with page.beginning_with(WITHOUT_STORAGE):
        page.open(address, width=1440)
    page.find(".key summary").click()
    page.find("#key").send_keys("a-key", Keys.TAB)
    page.hand_over("drop", photo(RED, "red.png"))
    page.until(lambda: first_labels(page) == ["red"])
    assert page.complaints() == []


async def test_figures_that_no_longer_come_are_called_old(
    page: Page, address: str, stack: Stack
) -> None:
    page.open(address, width=1440)
    stack.redis.pause()
    try:
        # It goes on counting.
        await aside(page.until, lambda: late_s(page) > 5)
        assert "no live figures" in live_said(page)
        page.load(address, width=1440)
        await aside(page.until, lambda: page.is_live() or late_s(page) > 7)
        assert not page.is_live()
    finally:
        stack.redis.resume()
    await aside(page.until, page.is_live)
    assert "live again" in live_said(page)


def late_s(page: Page) -> int:
    found = re.fullmatch(r"no news for (\d+) s", page.find("#live-state").text)
    return int(found[1]) if found else 0
