"""A person who uses Airflow's pages: this machine's Chromium, headless."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.sync_api import Page, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.airflow.server import Airflow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# it may connect to nothing but the server
_OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@contextmanager
def looking_at(airflow: Airflow) -> Iterator[Page]:
    """Log in as a person does, and yield the page after the login."""
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=_OPTIONS, viewport={"width": 1280, "height": 800}
        )
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(airflow.url)
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", airflow.password)
        page.click("button[type=submit]")
        page.wait_for_url("**/")
        yield page
        browser.close()
