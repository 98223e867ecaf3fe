"""A real Chromium, driven by selenium. Debian has both parts: ``apt-get install chromium chromium-driver``.

Where it is not installed these tests skip, unless S2VC_REQUIRE_BROWSER is set: then that is a failure.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1280,900"),
)
PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}


class Browser:
    """One Chromium with what tests ask of it. ``driver`` is selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Go to a page and wait until its script has run."""
        self.emulate()
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(url)
        self.until("return document.documentElement.dataset.ready === 'yes'")

    def emulate(self, *, phone: bool = False, dark: bool = False) -> None:
        """A phone's window or a desktop's, light or dark."""
        if phone:
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
        else:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, *arguments: Any, seconds: float = 30) -> Any:
        """Wait until a script returns something true."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(
            lambda driver: driver.execute_script(script, *arguments)
        )

    def find(self, selector: str) -> Any:
        """The first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """Texts of the elements of a CSS selector that can be seen."""
        return [one.text for one in self.driver.find_elements("css selector", selector) if one.is_displayed()]

    def complaints(self) -> list[str]:
        """What the console said since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """What was asked for since the page was opened, but for ``data:``."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return [url for url in found if not url.startswith("data:")]

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(
            self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        )

    def screenshot(self, selector: str) -> Any:
        """What is on screen of an element, as uint8 RGB (H, W, 3)."""
        import io

        import numpy as np
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(self.find(selector).screenshot_as_png)).convert("RGB"))

    def pdf(self) -> bytes:
        """The page as it prints."""
        return base64.b64decode(
            self.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
        )


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for all tests."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    missing = "chromium" if program is None else "chromium-driver" if driver is None else ""
    if missing:
        why = f"{missing} is not installed (apt-get install chromium chromium-driver)"
        if os.environ.get("S2VC_REQUIRE_BROWSER"):
            pytest.fail(why)
        pytest.skip(why)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(program)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(driver)))
    try:
        yield Browser(made)
    finally:
        made.quit()


@pytest.fixture
def page(tmp_path: Path) -> Any:
    """Writes a page and returns its address."""

    def write(html: bytes) -> str:
        path = tmp_path / "page.html"
        path.write_bytes(html)
        return path.as_uri()

    return write
