"""How it is shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.table import Table

from tidemark.inspect.state.standing import Fit
from tidemark.project.meltano_state import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from tidemark.inspect.state.standing import Standing

_COLOURS = {Fit.fits: "green", Fit.behind: "cyan", Fit.ahead: "red", Fit.elsewhere: "red"}


def as_json(found: Sequence[Standing]) -> str:
    """Return it as a JSON list."""
    return json.dumps([standing.as_dict() for standing in found], indent=2)


def show(console: Console, found: Sequence[Standing]) -> None:
    """Print a line a stream."""
    if not found:
        console.print("Nothing was loaded yet: there is no state.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("stream", "Meltano", "warehouse", "state"):
        table.add_column(heading, overflow="fold")
    for standing in found:
        fit = f"[{_COLOURS[standing.fit]}]{standing.fit}[/]{f': {standing.said}' if standing.said else ''}"
        bookmarks = (shown(value) if value else "-" for value in (standing.bookmark, standing.held.bookmark))
        table.add_row(standing.stream, *bookmarks, fit)
    console.print(table)
