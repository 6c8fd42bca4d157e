"""Renders the overview as HTML: one template, fully escaped, that loads nothing from elsewhere.

Its script only searches in what the page has; folding is HTML's own.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from tidemark_airflow.streams.overview import StreamsPage, first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tidemark_airflow.streams.overview import RunEntry, StreamEntry
    from tidemark_airflow.streams.run_history import HistoryError


def _instant(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M}"


def _bookmark(value: str | None) -> str:
    """Return an instant to the second, and any other value unchanged."""
    if value is None:
        return ""
    try:
        # fromisoformat would read a number such as 20260101 as a date
        return value if value.isdigit() else f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return value


def _span(seconds: float | None) -> str:
    """Return a duration in the unit that people would use."""
    if seconds is None:
        return "never"
    minutes = int(seconds // 60)
    if minutes < 60:  # noqa: PLR2004 - of an hour
        return f"{max(minutes, 0)} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"  # noqa: PLR2004 - two days


def _figure(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _tally(runs: Sequence[RunEntry | StreamEntry]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in Counter(run.outcome for run in runs).most_common())


def _said(stream: StreamEntry) -> list[str]:
    """Return what to say about a stream besides its figures: why something failed, and what differs."""
    last, found = stream.last, stream.comparison
    lines = []
    if last and last.error:
        lines.append(first_line(last.error) or "")
    if last and last.rows_rejected:
        lines.append(f"{last.rows_rejected:,} records were put aside into {stream.into}._tidemark_rejects.")
    if stream.log == "loading":
        lines.append("Its first load from the table is not complete; then it follows the log.")
    if stream.repair:
        lines.append(f"LOG_BASED, {stream.log}: {first_line(stream.repair)}. `tidemark slots repair` brings it back.")
    if found and found.error:
        lines.append(f"Not compared: {first_line(found.error)}")
    elif found:
        parts = {"missing": found.missing, "different": found.different, "extra": found.extra, "pending": found.pending}
        what = [f"{count:,} {part}" for part, count in parts.items() if count]
        if found.repaired is not None:
            what.append(f"{found.repaired:,} repaired")
        if found.since is not None:
            what.append(f"compared since {_bookmark(found.since)}")
        if what:
            lines.append(f"Rows: {', '.join(what)}.")
    return lines


_ENVIRONMENT = Environment(
    loader=PackageLoader("tidemark_airflow.streams"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    "bookmark": _bookmark,
    "figure": _figure,
    "first_line": first_line,
    "instant": _instant,
    "said": _said,
    "span": _span,
    "tally": _tally,
}


def html(look: StreamsPage | HistoryError, *, nonce: str) -> str:
    """Return the page, or a page that says why there is none.

    Args:
        nonce: identifies the page's own style and script to the browser.
    """
    found = look if isinstance(look, StreamsPage) else None
    template = _ENVIRONMENT.get_template("streams.html")
    return template.render(overview=found, problem=None if found else str(look), nonce=nonce)
