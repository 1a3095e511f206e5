"""A real browser without a window: Debian's chromium and its driver."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
PATIENCE = 120.0
"""Seconds after which a page that does not load counts as broken."""
OWN = ("file", "data", "blob", "about", "chrome", "chrome-untrusted")
"""Schemes that need no network; the last two are of the browser's first tab, which may load late."""


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with a fresh profile in a folder; the test is skipped where there is none, and fails in CI."""
    if not (CHROMIUM.exists() and DRIVER.exists()):
        if os.environ.get("CI") or os.environ.get("GRADPROBE_REQUIRE_CHROMIUM"):
            pytest.fail("the HTML report is tested in chromium: apt-get install chromium chromium-driver.")
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for option in (*OPTIONS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "saved")})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        driver.get("about:blank")
        driver.get_log("browser")  # what its first page complained of
        yield Browser(driver, folder)
    finally:
        driver.quit()
        shutil.rmtree(folder / "profile", ignore_errors=True)


class Browser:
    """What the tests ask of a browser.

    Args:
        driver: Selenium's driver.
        folder: Where downloads go, below ``saved``.
    """

    def __init__(self, driver: Any, folder: Path) -> None:
        self.driver = driver
        self.folder = folder

    def open(self, file: Path, state: str = "") -> None:
        """Load a page anew, with a state in its address, and wait until it is there: the driver may be early."""
        self.driver.get("about:blank")
        self.driver.get(file.as_uri() + state)
        until = time.monotonic() + PATIENCE
        while self.js("return document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < until, f"{file.name} does not load"
            time.sleep(0.02)

    def js(self, code: str, *given: Any) -> Any:
        """Run code in the page; what it returns."""
        return self.driver.execute_script(code, *given)

    def cdp(self, command: str, **given: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, given)

    @contextmanager
    def busy(self) -> Iterator[list[float]]:
        """Seconds of processor time that the page's main thread takes; the list holds them after the ``with``."""

        def spent() -> float:
            found = self.cdp("Performance.getMetrics")["metrics"]
            return next(float(m["value"]) for m in found if m["name"] == "TaskDuration")

        self.cdp("Performance.enable", timeDomain="threadTicks")
        seconds: list[float] = []
        before = spent()
        yield seconds
        seconds.append(spent() - before)
        self.cdp("Performance.disable")

    def look(self, width: int = 1280, height: int = 900, dark: bool = False, media: str = "") -> None:
        """Size of the window, light or dark, screen or print."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", media=media, features=[feature])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.cdp("Emulation.setDeviceMetricsOverride", **size)

    def complaints(self) -> list[str]:
        """What the console holds since this was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that pages from the disk asked for since this was asked last; not those of the first page."""
        messages = (json.loads(e["message"])["message"] for e in self.driver.get_log("performance"))
        sent = (m["params"] for m in messages if m["method"] == "Network.requestWillBeSent")
        return [str(p["request"]["url"]) for p in sent if p["documentURL"].startswith("file:")]

    def pdf(self) -> bytes:
        """The page as it prints."""
        printed = self.cdp("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        return base64.b64decode(printed["data"])
