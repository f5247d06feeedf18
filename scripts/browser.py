"""Debian's Chromium without a window, for tests, measurements and screenshots of HTML reports.

Needs the packages chromium and chromium-driver, and selenium of the extra `dev`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Missing", "browser", "open_report", "resize", "scheme"]

PATIENCE = 120.0  # seconds until a report has drawn itself, on a busy machine


class Missing(Exception):
    """What the browser needs and is not installed: one line."""


@contextmanager
def browser(width: int = 1440, height: int = 1000) -> Iterator[Any]:
    """A selenium driver with an empty profile. Raises Missing."""
    try:
        from selenium import webdriver
    except ImportError:
        raise Missing("selenium is not installed") from None
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        raise Missing("chromium or chromium-driver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        scheme(session, "light")
        resize(session, width, height)
        yield session
    finally:
        session.quit()


def resize(session: Any, width: int, height: int) -> None:
    """The page's size in pixels, also below the least size of a window."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    session.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def scheme(session: Any, name: str) -> None:
    """What the system prefers: light or dark."""
    features = [{"name": "prefers-color-scheme", "value": name}]
    session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def open_report(session: Any, path: Path, anchor: str = "") -> None:
    """Load a report, wait until it has drawn itself. RuntimeError: it says that it cannot, or never does."""
    session.get("about:blank")  # so that another anchor of the same file is a new load
    session.get(path.resolve().as_uri() + anchor)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if session.execute_script("return document.documentElement.dataset.ready === 'yes'"):
            return
        problem = session.execute_script("return document.getElementById('problem').textContent")
        if problem:
            raise RuntimeError(problem)
        time.sleep(0.1)
    raise RuntimeError(f"{path}: not drawn within {PATIENCE:.0f} s")
