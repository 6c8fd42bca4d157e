"""Prints the comparison of states."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.table import Table

from tidemark.inspect.state.comparison import Status
from tidemark.project.meltano_state import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from tidemark.inspect.state.comparison import StateComparison

_COLOURS = {Status.fits: "green", Status.behind: "cyan", Status.ahead: "red", Status.elsewhere: "red"}


def as_json(found: Sequence[StateComparison]) -> str:
    """Return the comparison as a JSON list."""
    return json.dumps([compared.as_dict() for compared in found], indent=2)


def show(console: Console, found: Sequence[StateComparison]) -> None:
    """Print one line per stream."""
    if not found:
        console.print("Nothing was loaded yet: there is no state.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("stream", "Meltano", "warehouse", "state"):
        table.add_column(heading, overflow="fold")
    for compared in found:
        fit = f"[{_COLOURS[compared.fit]}]{compared.fit}[/]{f': {compared.said}' if compared.said else ''}"
        bookmarks = (shown(value) if value else "-" for value in (compared.bookmark, compared.held.bookmark))
        table.add_row(compared.name, *bookmarks, fit)
    console.print(table)
