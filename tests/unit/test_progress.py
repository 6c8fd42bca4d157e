"""What a run prints while it goes on."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

from tidemark.run import progress
from tidemark.run.events import BlockDone, Followed, TextLine
from tidemark.run.outcome import BlockOutcome, RunOutcome
from tidemark.run.progress import LineProgress

if TYPE_CHECKING:
    import pytest


def test_a_follower_says_once_a_minute_how_far_it_is_and_a_terminal_shows_it_at_each_news(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=time.sleep))
    lines: list[str] = []
    shown: list[str] = []
    plain, live = LineProgress(lambda _, text: lines.append(text)), LineProgress(lambda *_: None, shown.append)

    def follow(*changes: int) -> None:
        for view in (plain, live):
            began = clock.now

            def events(began: float = began) -> object:
                for number, count in enumerate(changes):
                    clock.now = began + 20 * number
                    yield Followed(count, "loaded", 1.8)

            view.follow(events(), RunOutcome([BlockOutcome("tap-postgres target-postgres")]))  # type: ignore[arg-type]
            end, clock.now = clock.now, began
        clock.now = end + 20

    follow(0, 1000, 2000, 6000)
    assert lines == [
        "0 changes loaded, 0/s, 1.8 s behind the source",
        "6,000 changes loaded, 100/s, 1.8 s behind the source",
    ]
    assert shown[1:] == [
        "1,000 changes loaded, 50/s, 1.8 s behind the source",
        "2,000 changes loaded, 50/s, 1.8 s behind the source",
        "6,000 changes loaded, 200/s, 1.8 s behind the source",
    ]
    # the next run begins to count again
    follow(0, 7)
    assert shown[-1] == "6,007 changes loaded, 0.3/s, 1.8 s behind the source"


def test_a_run_says_each_error_once_and_leaves_out_what_explains_nothing() -> None:
    why = "public-orders has no column updated_at; correct its replication-key."
    lines: list[tuple[str, str]] = []
    view = LineProgress(lambda level, text: lines.append((level, text)))
    events = [
        TextLine("Need help fixing this problem? Visit the documentation.", "meltano", "info"),
        TextLine(f"Reading public-orders failed; the run continues: {why}", "tap-postgres", "warning"),
        TextLine(why, "tap-postgres", "error"),
        TextLine("Extractor failed", "meltano", "error"),
        BlockDone(success=False, error="Extractor failed"),
    ]
    view.follow(iter(events), RunOutcome([BlockOutcome("tap-postgres target-postgres")]))
    assert [text for level, text in lines if level != "debug"] == [
        f"tap-postgres: Reading public-orders failed; the run continues: {why}",
        "tap-postgres target-postgres failed: Extractor failed",
    ]
