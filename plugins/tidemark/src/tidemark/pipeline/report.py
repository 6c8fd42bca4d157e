"""The summary at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from rich.measure import Measurement
from rich.table import Table

from tidemark.pipeline.counts import table_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from tidemark.pipeline.outcome import Outcome
    from tidemark.pipeline.state import Bookmark


@dataclass(frozen=True)
class StreamReport:
    """What became of a stream's rows. Of those read, each was new, changed, or read again unchanged.

    Of a stream that is read whole, nobody knows which had changed: `changed` and `again` are None.
    """

    stream: str
    read: int
    written: int
    new: int
    changed: int | None
    again: int | None
    bookmark: str


def stream_reports(
    outcome: Outcome,
    *,
    before: Mapping[str, int],
    after: Mapping[str, int],
    at_bookmarks: Mapping[str, int],
    bookmarks: Mapping[str, Bookmark],
) -> list[StreamReport]:
    """Tell for each stream how many rows were new, changed or read again.

    Args:
        before: rows of each raw table before the run.
        after: rows of each raw table after it.
        at_bookmarks: rows of the source that stood at each stream's bookmark before the run; a tap starts there,
            so it reads them again.
        bookmarks: those after the run.
    """
    reports = []
    for stream in sorted(outcome.read):
        table = table_of(stream)
        read = outcome.read[stream]
        new = min(read, max(0, after.get(table, 0) - before.get(table, 0)))
        again = min(read - new, at_bookmarks.get(stream, 0))
        whole = stream not in outcome.incremental
        reports.append(
            StreamReport(
                stream=stream,
                read=read,
                written=outcome.written[stream],
                new=new,
                changed=None if whole else read - new - again,
                again=None if whole else again,
                bookmark="read whole" if whole else _shown(bookmarks.get(stream)),
            )
        )
    return reports


def _shown(bookmark: Bookmark | None) -> str:
    """Return a bookmark to the second if it is an instant, and as it is if not."""
    if bookmark is None:
        return "none"
    try:
        return datetime.fromisoformat(bookmark.value).strftime("%Y-%m-%d %H:%M:%S")
    except (TypeError, ValueError):
        return str(bookmark.value)


def stream_table(reports: list[StreamReport]) -> Table:
    """Return the table of streams."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stream", no_wrap=True)
    for heading in ("read", "written", "new", "changed", "again"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bookmark", no_wrap=True)
    for report in reports:
        figures = (report.read, report.written, report.new, report.changed, report.again)
        shown = ("-" if figure is None else f"{figure:,}" for figure in figures)
        table.add_row(report.stream, *shown, report.bookmark)
    return table


def show(
    console: Console, outcome: Outcome, reports: list[StreamReport], *, seconds: float, next_steps: list[str]
) -> None:
    """Print the summary."""
    console.print()
    table = stream_table(reports)
    # a figure cut short would lie: a table too wide for the terminal runs over its edge
    wanted = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.width = max(wanted, console.width)
    console.print(table)
    moved = sum(report.new + (report.changed or 0) for report in reports)
    again = sum(report.again or 0 for report in reports)
    whole = sum(report.read for report in reports if report.again is None)
    console.print(
        f"\n{moved:,} rows new or changed"
        + (f"; {again:,} read again, as a tap starts at its bookmark" if again else "")
        + (f"; {whole:,} in streams that are read whole" if whole else "")
        + "."
    )
    for block in outcome.blocks:
        if block.totals:
            totals = block.totals
            warned = f", {totals.warned} warned" if totals.warned else ""
            console.print(f"{totals.passed} {block.counted}{warned}.")
    console.print(f"Done in {seconds:.1f} s. Next:")
    for step in next_steps:
        console.print(f"  {step}", style="cyan", soft_wrap=True)
