"""The summary at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from tidemark.inspect.tables import print_whole
from tidemark.project.meltano_state import shown
from tidemark.run.outcome import named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from tidemark.project.meltano_state import Bookmark
    from tidemark.run.outcome import RunOutcome


@dataclass(frozen=True)
class StreamReport:
    """A stream's row counts from tap and target. A row that was read is new, changed or unchanged."""

    stream: str
    read: int
    new: int
    changed: int
    deleted: int
    bookmark: str

    @property
    def unchanged(self) -> int:
        """Rows that were read and already in the warehouse: a tap starts a little before its bookmark."""
        return max(0, self.read - self.new - self.changed)


def stream_reports(outcome: RunOutcome, bookmarks: Mapping[str, Bookmark]) -> list[StreamReport]:
    """Return the row counts of each stream.

    Args:
        bookmarks: the bookmarks after the run.
    """
    return [
        StreamReport(
            stream=stream,
            read=rows["read"],
            new=rows["inserted"],
            changed=rows["updated"],
            deleted=rows["deleted"],
            bookmark=_shown(bookmarks.get(stream)) if stream in outcome.incremental else "read whole",
        )
        for stream, rows in sorted(outcome.rows.items())
    ]


def _shown(bookmark: Bookmark | None) -> str:
    return "none" if bookmark is None else shown(bookmark.value)


def stream_table(reports: list[StreamReport]) -> Table:
    """Return the table of streams."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stream", no_wrap=True)
    for heading in ("read", "new", "changed", "deleted", "unchanged"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bookmark", no_wrap=True)
    for report in reports:
        figures = (report.read, report.new, report.changed, report.deleted, report.unchanged)
        table.add_row(report.stream, *(f"{figure:,}" for figure in figures), report.bookmark)
    return table


def show(
    console: Console, outcome: RunOutcome, reports: list[StreamReport], *, seconds: float, next_steps: list[str]
) -> None:
    """Print the summary."""
    console.print()
    print_whole(console, stream_table(reports))
    moved = sum(report.new + report.changed + report.deleted for report in reports)
    console.print(f"\n{moved:,} rows new, changed or deleted.")
    for block in outcome.blocks:
        if block.passed:
            warned = f", {block.warned} warned" if block.warned else ""
            console.print(f"{block.passed} {block.counted}{warned}.")
    if outcome.left_out:
        count = len(outcome.left_out)
        which = f"{count} models were" if count > 1 else "1 model was"
        console.print(f"{which} not built, {outcome.why_left_out}: {named(outcome.left_out)}.")
    console.print(f"Done in {seconds:.1f} s.{' Next:' if next_steps else ''}")
    for step in next_steps:
        console.print(f"  {step}", style="cyan", soft_wrap=True)
