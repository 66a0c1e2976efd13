"""Files of all kinds, and what the page makes of them."""

import os
from pathlib import Path

import pytest

from tests.integration.test_gateway import aside
from tests.page.browser import Page
from tests.page.photos import RED, first_labels, photo
from tests.stack import image_of

IS_LOADED = "return [...document.querySelectorAll('img.picture')].map((img) => img.complete)"

LETTER = ("letter.pdf", "application/pdf", b"%PDF-1.4")

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


@pytest.mark.parametrize("is_gone", [False, True])
async def test_a_file_that_changed_is_to_be_chosen_again(
    page: Page, address: str, tmp_path: Path, *, is_gone: bool
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"no image yet")
    page.open(address, width=1440)
    page.choose([path])
    await aside(page.until, lambda: bool(page.all(".result[data-state=failed]")))
    if is_gone:
        path.unlink()
    else:
        path.write_bytes(image_of(RED))
        os.utime(path, (1, 1))
    page.find(".result button").click()
    await aside(page.until, lambda: "changed or is gone" in page.find("#results").text)
    assert page.all(".result[data-state=failed]")


async def test_what_is_left_out_is_named(page: Page, address: str) -> None:
    page.open(address, width=360)
    page.hand_over("drop", LETTER)
    assert "no images: letter.pdf." in page.find("#drop").text
    page.hand_over("drop", photo(RED, "red.png"))
    assert "letter" not in page.find("body").text
    letters = [(f"{n}-{name}", kind, data) for n in range(5) for name, kind, data in [LETTER]]
    page.hand_over("drop", photo(RED, "red.png"), *letters)
    assert "0-letter.pdf, 1-letter.pdf, 2-letter.pdf and 2 more." in page.find("#drop").text
    await aside(page.until, lambda: first_labels(page) == ["red", "red"])
    assert page.overflow() == 0


async def test_a_folder_is_left_out(page: Page, address: str, tmp_path: Path) -> None:
    folder, file = tmp_path / "holiday", tmp_path / "red"
    folder.mkdir()
    file.write_bytes(image_of(RED))  # without a type, as the folder
    page.open(address, width=1440)
    drop_from_disk(page, folder, file)
    await aside(page.until, lambda: first_labels(page) == ["red"])
    assert "no images: holiday (a folder)." in page.find("#drop").text
    assert len(page.all(".result")) == 1


def drop_from_disk(page: Page, *paths: Path) -> None:
    x, y = page.run(
        "const box = document.getElementById('drop').getBoundingClientRect();"
        "return [box.x + 20, box.y + 20]"
    )
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": x, "y": y, "data": data}
        page.driver.execute_cdp_cmd("Input.dispatchDragEvent", event)


async def test_a_proxy_without_words_for_its_status_is_shown_with_it(
    page: Page, address: str
) -> None:
    page.open(address, width=1440)
    # As over HTTP/2.
    page.run("window.fetch = async () => new Response('<html>', { status: 413 })")
    page.hand_over("drop", photo(RED, "red.png"))
    await aside(page.until, lambda: "HTTP 413" in page.find("#results").text)
