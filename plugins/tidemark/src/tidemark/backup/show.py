"""Lists backups."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table

from tidemark.errors import TidemarkError

if TYPE_CHECKING:
    from rich.console import Console

    from tidemark.backup.store import BackupStore

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


def listed(store: BackupStore) -> list[dict[str, Any]]:
    """Return each complete backup with its properties, the oldest first."""
    found = []
    for name in store.backups():
        try:
            manifest = store.manifest(name)
        except TidemarkError as error:
            found.append({"name": name, "good": False, "said": str(error)})
            continue
        gone = store.missing(manifest)
        found.append(
            {
                "name": name,
                "good": not gone,
                "said": f"{gone[0]} is missing or incomplete" if gone else "",
                "made_at": manifest.made_at.isoformat(),
                "pipeline": manifest.pipeline,
                "rows": manifest.warehouse.rows,
                "bytes": manifest.size,
                "seconds": manifest.seconds,
                "airflow": manifest.airflow is not None,
            }
        )
    return found


def as_json(found: list[dict[str, Any]]) -> str:
    """Return the list as JSON."""
    return json.dumps(found, indent=2)


def show(console: Console, found: list[dict[str, Any]], store: BackupStore) -> None:
    """Print one line per backup."""
    if not found:
        console.print(f"There is no backup at {store.name}.", soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("backup", "of", "rows", "size", "took", "airflow", "state"):
        table.add_column(heading, overflow="fold", justify="right" if heading in {"rows", "size", "took"} else "left")
    for each in found:
        if "rows" not in each:
            table.add_row(each["name"], "", "", "", "", "", f"[red]damaged[/]: {each['said']}")
            continue
        table.add_row(
            each["name"],
            each["pipeline"],
            f"{each['rows']:,}",
            size(each["bytes"]),
            f"{each['seconds']:.1f} s",
            "yes" if each["airflow"] else "no",
            "[green]good[/]" if each["good"] else f"[red]damaged[/]: {each['said']}",
        )
    console.print(table)


def size(number: float) -> str:
    """Return a number of bytes with a unit."""
    for unit in _UNITS:
        if number < _STEP or unit == _UNITS[-1]:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= _STEP
    raise AssertionError
