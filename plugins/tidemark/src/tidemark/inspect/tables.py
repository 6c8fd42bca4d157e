"""Prints tables of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.measure import Measurement

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDEST = 1000


def printed_size(count: int) -> str:
    """Return a number of bytes for a person to read.

    >>> printed_size(1_300_000)
    '1.2 MB'
    """
    return f"{count / 2**20:,.1f} MB"


def print_whole(console: Console, table: Table) -> None:
    """Print a table as wide as its content, even past the terminal's edge: a truncated number would be wrong."""
    wanted = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
    console.width = max(wanted, console.width)
    console.print(table)
