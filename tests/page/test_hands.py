"""What a person does by accident, or in an order of their own."""

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from tests.integration.test_gateway import aside
from tests.page.browser import Page
from tests.page.photos import RED, first_labels, photo

RECORD_MODELS = """
window.models = [];
const real = window.fetch;
window.fetch = (path, options) => {
  const found = path.match(/models\\/(.+):predict/);
  if (found) window.models.push(found[1]);
  return real(path, options);
};
document.getElementById("model").append(new Option("other", "other"));
"""

TWO_MODELS = """
window.isAway = false;
window.states = { another: "READY", colours: "READY" };
const real = window.fetch;
window.fetch = async (path, options) => {
  if (path !== "/v1/models") return real(path, options);
  if (window.isAway) return new Response("", { status: 503 });
  const model = ([name, state]) => ({ name, state: `MODEL_STATE_${state}` });
  return new Response(JSON.stringify({ models: Object.entries(window.states).map(model) }));
};
"""

CHOSEN = "return document.getElementById('model').value"

SLOW_CAMERA = """
const { mediaDevices } = navigator;
const real = mediaDevices.getUserMedia.bind(mediaDevices);
window.asked = 0;
window.start = new Promise((resolve) => (window.begin = resolve));
mediaDevices.getUserMedia = async (wanted) => {
  window.asked += 1;
  await window.start;
  return real(wanted);
};
"""

PASTE_KEY = """
const transfer = new DataTransfer();
transfer.setData("text/plain", "secret");
transfer.items.add(new File([new Uint8Array(10)], "image.png", { type: "image/png" }));
const paste = { clipboardData: transfer, bubbles: true, cancelable: true };
document.getElementById("key").dispatchEvent(new ClipboardEvent("paste", paste));
"""

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]


async def test_a_photo_has_the_model_that_was_chosen_when_it_came(page: Page, address: str) -> None:
    page.open(address, width=1440)
    page.run(RECORD_MODELS)
    page.hand_over("drop", *(photo((n, 2, 3), f"{n}.png") for n in range(1, 9)))
    page.run("document.getElementById('model').value = 'other'")
    await aside(page.until, lambda: page.find("#summary").text == "8 of 8 labelled.")
    assert set(page.run("return window.models")) == {"colours"}
    assert "colours version 1" in page.find(".result .timing").text
    page.hand_over("drop", photo(RED, "red.png"))
    await aside(page.until, lambda: "MODEL_NOT_FOUND" in page.find("#results").text)
    # Trying again is choosing again.
    page.run("document.getElementById('model').value = 'colours'")
    page.find(".result button").click()
    await aside(page.until, lambda: page.find("#summary").text == "9 of 9 labelled.")


async def test_a_choice_outlives_a_list_that_does_not_come(page: Page, address: str) -> None:
    with page.beginning_with(TWO_MODELS):
        page.open(address, width=1440)
    Select(page.find("#model")).select_by_value("colours")
    page.run("window.isAway = true")
    look_again(page)
    await aside(page.until, lambda: page.run(CHOSEN) == "")
    page.run("window.isAway = false")
    await aside(page.until, lambda: page.run(CHOSEN) != "")
    assert page.run(CHOSEN) == "colours"


async def test_who_chooses_no_model_gets_one_with_a_worker(page: Page, address: str) -> None:
    states = "window.states = { another: 'NO_WORKER', colours: 'LOADING' };"
    with page.beginning_with(TWO_MODELS), page.beginning_with(states):
        page.open(address, width=1440)
    assert page.run(CHOSEN) == "colours"
    # The page looks by itself until there is a worker, and stays with its model.
    page.run("window.states = { another: 'READY', colours: 'NO_WORKER' }")
    await aside(page.until, lambda: page.run(CHOSEN) == "another")
    page.run("window.states = { ahead: 'READY', another: 'READY', colours: 'READY' }")
    look_again(page)
    await aside(page.until, lambda: "ahead" in page.find("#model").text)
    assert page.run(CHOSEN) == "another"


async def test_a_model_without_a_worker_is_left_to_who_chooses_it(page: Page, address: str) -> None:
    states = "window.states = { another: 'NO_WORKER', colours: 'READY' };"
    with page.beginning_with(TWO_MODELS), page.beginning_with(states):
        page.open(address, width=1440)
    assert page.run(CHOSEN) == "colours"
    Select(page.find("#model")).select_by_value("another")
    page.run("window.states = { ...window.states, last: 'READY' }")
    look_again(page)
    await aside(page.until, lambda: "last" in page.find("#model").text)
    assert page.run(CHOSEN) == "another"


def look_again(page: Page) -> None:
    """Have the page ask for the models, as it does after each new key."""
    page.run("document.querySelector('.key').open = true")
    page.find("#key").send_keys("a", Keys.TAB)


async def test_two_clicks_take_one_photo(page: Page, address: str) -> None:
    page.open(address, width=1440)
    page.run(SLOW_CAMERA)
    page.find("#take").click()
    page.find("#take").click()
    page.run("window.begin()")
    take = page.find("#shot [value=take]")
    await aside(page.until, lambda: take.is_displayed() and take.is_enabled())
    take.click()
    await aside(page.until, lambda: bool(page.all(".result")))
    assert page.run("return window.asked") == 1
    assert len(page.all(".result")) == 1
    assert page.complaints() == []


async def test_what_is_pasted_as_a_key_is_no_photo(page: Page, address: str) -> None:
    page.open(address, width=1440)
    page.find(".key summary").click()
    page.run(PASTE_KEY)
    page.hand_over("paste", photo(RED, "red.png"))
    await aside(page.until, lambda: first_labels(page) == ["red"])
    assert len(page.all(".result")) == 1


async def test_a_drag_that_leaves_is_over(page: Page, address: str) -> None:
    page.open(address, width=1440)
    await aside(page.until, lambda: bool(page.all(".workers li")))
    x, y = page.run(
        "const box = document.querySelector('.workers li').getBoundingClientRect();"
        "return [box.x + 20, box.y + 10]"
    )
    drag(page, "dragEnter", 300, 10)
    page.run("window.row = document.querySelector('.workers li')")

    def row_is_replaced() -> bool:
        drag(page, "dragOver", x, y)
        return not page.run("return window.row.isConnected")

    await aside(page.until, row_is_replaced)
    assert page.find("#drop").get_attribute("class") == "drop over"
    drag(page, "dragOver", 300, 10)
    drag(page, "dragCancel", 300, 10)
    await aside(page.until, lambda: page.find("#drop").get_attribute("class") == "drop")


def drag(page: Page, kind: str, x: float, y: float) -> None:
    data = {"items": [], "files": ["/photo.png"], "dragOperationsMask": 1}
    event = {"type": kind, "x": x, "y": y, "data": data}
    page.driver.execute_cdp_cmd("Input.dispatchDragEvent", event)
