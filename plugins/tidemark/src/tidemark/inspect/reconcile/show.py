"""Prints the results of a reconciliation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.table import Table

from tidemark.inspect.tables import print_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from tidemark.inspect.reconcile.hash_queries import Key
    from tidemark.inspect.reconcile.result import ReconcileResult

_EXAMPLES = 3
_KINDS = ("missing", "extra", "different")


def as_json(results: Sequence[ReconcileResult]) -> str:
    """Return the results as a JSON list."""
    return json.dumps([_as_dict(result) for result in results], indent=2)


def _as_dict(result: ReconcileResult) -> dict[str, object]:
    about: dict[str, object] = {
        "source": result.source.name,
        "stream": result.stream,
        "equal": result.equal,
    }
    if result.error:
        return {**about, "error": result.error}
    assert result.found
    counts = dict(zip(_KINDS, result.found.counts, strict=True))
    examples = {kind: [list(key) for key in getattr(result.found, kind)[:_EXAMPLES]] for kind in _KINDS}
    rows = dict(zip(("source", "warehouse"), result.found.rows, strict=True))
    about |= {"rows": rows, **counts, "pending": result.found.pending, "examples": examples}
    if result.repaired:
        done = result.repaired
        about["repaired"] = {"inserted": done.inserted, "updated": done.updated, "deleted": done.deleted}
    if result.left and not result.left.equal:
        about["left"] = dict(zip(_KINDS, result.left.counts, strict=True)) | {"why": result.why}
    return about


def show(console: Console, results: Sequence[ReconcileResult]) -> None:
    """Print a table, examples of the differences, and the repairs."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stream", no_wrap=True)
    for heading in ("source rows", "warehouse rows", *_KINDS, "pending"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        if result.found:
            figures = (*result.found.rows, *result.found.counts, result.found.pending)
            table.add_row(result.name, *(f"{figure:,}" for figure in figures))
    if table.rows:
        print_whole(console, table)
    for result in results:
        if result.error:
            whose = "" if result.source.alone else f"{result.source.name}: "
            console.print(f"✗ {whose}{result.error}", style="red", soft_wrap=True)
            continue
        assert result.found
        for kind in _KINDS:
            if keys := getattr(result.found, kind):
                more = f" and {len(keys) - _EXAMPLES:,} more" if len(keys) > _EXAMPLES else ""
                shown = ", ".join(map(_key, keys[:_EXAMPLES]))
                console.print(f"{result.name}: {kind} {shown}{more}", soft_wrap=True, markup=False)
        _show_repair(console, result)


def _show_repair(console: Console, result: ReconcileResult) -> None:
    if result.left and not result.left.equal:
        counts = (f"{count:,} {kind}" for kind, count in zip(_KINDS, result.left.counts, strict=True) if count)
        why = f": {result.why}" if result.why else "; run the pipeline, then run this again"
        text = f"✗ {result.name}: not repaired, still {', '.join(counts)}{why}"
        console.print(text, style="red", soft_wrap=True, markup=False)
    elif result.repaired:
        done = result.repaired
        console.print(
            f"{result.name}: repaired; {done.inserted:,} rows inserted, {done.updated:,} updated, "
            f"{done.deleted:,} marked as deleted.",
            style="green",
            soft_wrap=True,
        )


def _key(key: Key) -> str:
    return key[0] if len(key) == 1 else f"({', '.join(key)})"
