"""A real Chromium without a screen, and what a person does with the page in it."""

import base64
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

LIMIT_S: Final = 20.0
PHONE_WIDTH: Final = 500
"""Narrower than this is a phone, with a finger."""

OPTIONS: Final = (
    "--headless=new",
    # As root, as in a container, there is no sandbox to be had.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    # A camera that shows a test picture, and that every page may use.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)

_HAND_OVER: Final = """
const [kind, files] = arguments;
const transfer = new DataTransfer();
for (const [name, type, data] of files) {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  transfer.items.add(new File([bytes], name, { type }));
}
const target = document.getElementById("drop");
const event = kind === "paste"
  ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
  : (name) => new DragEvent(name, { dataTransfer: transfer, bubbles: true, cancelable: true });
if (kind === "paste") document.body.dispatchEvent(event);
else for (const name of ["dragenter", "dragover", "drop"]) target.dispatchEvent(event(name));
"""


def programs() -> tuple[str, str] | None:
    """Return the browser and its driver; None if one is missing."""
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextmanager
def browser() -> Iterator["Page"]:
    """Run a browser while inside; skip the test if there is none."""
    found = programs()
    if found is None:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found[1]))
    try:
        yield Page(driver)
    finally:
        driver.quit()


class Page:
    """The page, as wide as a test wants it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(
        self,
        address: str,
        *,
        width: int,
        scheme: Literal["light", "dark"] = "light",
        limit_s: float = LIMIT_S,
    ) -> None:
        """Load the page anew, and wait until it knows the models and has live figures."""
        self.load(address, width=width, scheme=scheme)
        self.until(self.is_live, limit_s)
        self.until(lambda: bool(self.find("#model").get_attribute("value")), limit_s)

    def load(self, address: str, *, width: int, scheme: Literal["light", "dark"] = "light") -> None:
        """Load the page anew."""
        self.resize(width, 900)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(f"http://{address}/")

    @contextmanager
    def beginning_with(self, script: str) -> Iterator[None]:
        """Run a script before those of every page that is loaded while inside."""
        made = self.driver.execute_cdp_cmd(
            "Page.addScriptToEvaluateOnNewDocument", {"source": script}
        )
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", made)

    def is_live(self) -> bool:
        """Say whether the live figures come."""
        return self.find("#live-state").get_attribute("data-state") == "live"

    def resize(self, width: int, height: int) -> None:
        """Make the window as large as that, pixels."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {
                "width": width,
                "height": height,
                "deviceScaleFactor": 1,
                "mobile": width < PHONE_WIDTH,
            },
        )
        self.driver.execute_cdp_cmd(
            "Emulation.setTouchEmulationEnabled", {"enabled": width < PHONE_WIDTH}
        )

    def find(self, selector: str) -> WebElement:
        """Return the first element that fits."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Return all elements that fit."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def hand_over(self, kind: Literal["drop", "paste"], *photos: tuple[str, str, bytes]) -> None:
        """Drop or paste photos: name, type and bytes of each."""
        files = [(name, type_, base64.b64encode(data).decode()) for name, type_, data in photos]
        self.driver.execute_script(_HAND_OVER, kind, files)

    def choose(self, paths: Sequence[Path]) -> None:
        """Choose files, as in the dialogue that the button opens."""
        self.find("#files").send_keys("\n".join(map(str, paths)))

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def run(self, script: str) -> Any:
        """Return what a script does."""
        return self.driver.execute_script(script)

    def until(self, condition: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
        """Wait until the page shows something."""
        WebDriverWait(self.driver, limit_s, poll_frequency=0.05).until(lambda _: condition())

    def overflow(self) -> int:
        """Return by how much the page is wider than the window, pixels."""
        return int(self.run("return document.documentElement.scrollWidth - innerWidth"))

    def complaints(self) -> list[str]:
        """Return what the browser has against the page, such as a violated policy."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        # The browser logs each answer above 399; some tests want those.
        return [
            entry["message"]
            for entry in entries
            if entry["level"] == "SEVERE" and entry["source"] != "network"
        ]
