"""The page of streams with more streams than fit on a screen, in a browser."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from tests.airflow.browser import CHROMIUM
from tests.conftest import REPOSITORY
from tidemark_airflow.streams import show
from tidemark_airflow.streams.overview import RunEntry, StreamEntry, StreamsPage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: chromium)"),
]
NOW = datetime(2026, 11, 29, 15, 0, tzinfo=UTC)
SCREENSHOT = REPOSITORY / ".tidemark" / "screenshots" / "streams.png"


def stream(source: str, name: str, outcome: str = "succeeded", **more: object) -> StreamEntry:
    runs = [
        RunEntry(
            run_id="x",
            outcome=outcome if hour == 0 else "succeeded",
            started_at=NOW - timedelta(hours=hour),
            ended_at=NOW,
            rows_read=1200,
            rows_inserted=40,
            rows_updated=7,
            rows_deleted=0,
            rows_rejected=0,
            error="the disk is full\nin detail" if outcome == "failed" and hour == 0 else None,
        )
        for hour in reversed(range(20))
    ]
    table = f"raw_{source}.{name.removeprefix('public-')}"
    return StreamEntry(
        source=source,
        database="7312/5",
        stream=name,
        into=f"raw_{source}",
        table=table,
        runs=runs,
        lag_seconds=60,
        **more,
    )


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """Three sources with 150 streams; one failed, in the second source."""
    streams = [
        stream(source, f"public-{name}_{number:02}", "failed" if (source, number) == ("crm", 33) else "succeeded")
        for source, count, name in (("app", 60, "orders"), ("crm", 70, "contacts"), ("erp", 20, "invoices"))
        for number in range(count)
    ]
    look = StreamsPage(warehouse="warehouse on 127.0.0.1:5434", at=NOW, streams=streams)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1280, "height": 800})
        shown.set_content(show.html(look, nonce="x"))
        yield shown
        browser.close()


def visible(page: Page) -> list[str]:
    return [name.inner_text() for name in page.locator(".streams .name").all() if name.is_visible()]


def test_what_failed_comes_first_and_what_is_well_is_folded(page):
    assert [heading.inner_text() for heading in page.locator("h2").all()][:3] == [
        "Source crm",
        "Source app",
        "Source erp",
    ]
    assert visible(page) == ["public-contacts_33"]
    assert page.get_by_text("the disk is full").is_visible()
    SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOT, full_page=True)
    page.get_by_text("69 more, all well").click()
    assert len(visible(page)) == 70
    page.get_by_text("69 more, all well").click()


def test_a_search_finds_streams_in_all_sources_and_folds_them_again(page):
    box = page.get_by_role("searchbox")
    for words, found in (("contacts_1", 10), ("app orders_05", 1), ("failed", 1), ("_07", 3), ("nothing", 0)):
        box.fill(words)
        assert len(visible(page)) == found, words
        assert page.locator("#found").inner_text() == f"{found} of 150"
    box.fill("")
    assert visible(page) == ["public-contacts_33"]
