"""The summary at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.measure import Measurement
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from tidemark.pipeline.counts import Count
    from tidemark.pipeline.outcome import Outcome
    from tidemark.pipeline.state import Bookmark


@dataclass(frozen=True)
class StreamReport:
    """What became of a stream's rows. Of those read, each was new, changed, or read again unchanged."""

    stream: str
    read: int
    written: int
    new: int
    changed: int
    again: int
    bookmark: str


def stream_reports(
    outcome: Outcome,
    before: Mapping[str, Count],
    after: Mapping[str, Count],
    bookmarks: Mapping[str, Bookmark],
) -> list[StreamReport]:
    """Tell for each stream how many rows were new, changed or read again.

    Args:
        before: counts before the run.
        after: counts after it, at the bookmarks from before it.
        bookmarks: those after the run.

    A tap reads from its bookmark on, the bookmark included, so rows that stood there before and stand there still
    were read again; a stream without a bookmark is read whole, and all that is not new was there before.
    """
    reports = []
    for stream in sorted(outcome.read):
        # a table's first rows have no count before
        then, now = before.get(stream), after.get(stream)
        read = outcome.read[stream]
        new = max(0, (now.rows if now else 0) - (then.rows if then else 0))
        old = max(0, read - new)
        again = min(old, then.at_bookmark, now.at_bookmark) if then and now else 0
        bookmark = bookmarks.get(stream)
        if bookmark is None:
            again = old
        reports.append(
            StreamReport(
                stream=stream,
                read=read,
                written=outcome.written[stream],
                new=new,
                changed=old - again,
                again=again,
                bookmark=str(bookmark.value).replace("T", " ")[:19] if bookmark else "read whole",
            )
        )
    return reports


def stream_table(reports: list[StreamReport]) -> Table:
    """Return the table of streams."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stream", no_wrap=True)
    for heading in ("read", "written", "new", "changed", "again"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bookmark (UTC)", no_wrap=True)
    for report in reports:
        figures = (report.read, report.written, report.new, report.changed, report.again)
        table.add_row(report.stream, *(f"{figure:,}" for figure in figures), report.bookmark)
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
    read, again = sum(r.read for r in reports), sum(r.again for r in reports)
    moved = read - again
    console.print(
        f"\n{moved:,} rows new or changed"
        + (f"; {again:,} read again, as a tap starts at its bookmark." if again else ".")
    )
    for block in outcome.blocks:
        if block.totals:
            totals = block.totals
            noun = "models built" if block.title.startswith("Build") else "tests passed"
            warned = f", {totals.warned} warned" if totals.warned else ""
            console.print(f"{totals.passed} {noun}{warned}.")
    console.print(f"Done in {seconds:.1f} s. Next:")
    for step in next_steps:
        console.print(f"  {step}", style="cyan", soft_wrap=True)
