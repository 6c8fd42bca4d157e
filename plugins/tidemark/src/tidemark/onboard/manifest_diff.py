"""Compares a source's tables with what was written for them: which are new, renamed, changed or gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from tidemark.onboard.manifest import KnownTable

# how much of its columns a table must share with one that is gone, to be that table under another name
_SAME = 0.5


@dataclass(frozen=True)
class TableChange:
    """A change of a table.

    Attributes:
        kind: `new`, `renamed`, `changed` or `gone`.
        what: each change in words.
    """

    stream: str
    kind: str
    what: tuple[str, ...] = ()


def compare(before: Mapping[str, KnownTable], after: Mapping[str, KnownTable]) -> Iterator[TableChange]:
    """Yield what changed. A table that was reported as gone before is not reported again."""
    renamed = _renamed(before, after)
    for stream, table in after.items():
        if table.gone:
            if stream in before and not before[stream].gone and stream not in renamed.values():
                yield TableChange(stream, "gone", (f"it is no longer read; {table.model} stays until it is removed",))
        elif stream in renamed:
            old = renamed[stream]
            yield TableChange(stream, "renamed", (f"was {old}", *_columns(before[old], table)))
        elif stream not in before or before[stream].gone:
            yield TableChange(stream, "new")
        elif changes := tuple(_columns(before[stream], table)):
            yield TableChange(stream, "changed", changes)
    for stream in before.keys() - after.keys():
        yield TableChange(stream, "gone", ("its files are removed",))


def _renamed(before: Mapping[str, KnownTable], after: Mapping[str, KnownTable]) -> dict[str, str]:
    """Return the old name of each renamed table."""
    gone = {
        table.oid: stream
        for stream, table in before.items()
        if table.oid and (stream not in after or after[stream].gone)
    }
    found = {}
    for stream, table in after.items():
        old = gone.get(table.oid)
        if stream not in before and not table.gone and old is not None:
            shared = before[old].columns.keys() & table.columns.keys()
            if len(shared) >= _SAME * len(before[old].columns):
                found[stream] = old
    return found


def _columns(before: KnownTable, after: KnownTable) -> Iterator[str]:
    old, new = before.columns, after.columns
    renamed = _renamed_columns(old, new)
    for name in new:
        if name in renamed:
            yield f"column {renamed[name]} is {name} now"
        elif name not in old:
            yield f"column {name} is new"
        elif old[name]["type"] != new[name]["type"]:
            yield f"column {name} was {old[name]['type']} and is {new[name]['type']}"
    for name in old:
        if name not in new and name not in renamed.values():
            yield f"column {name} is gone"
    if (before.method, before.replication_key) != (after.method, after.replication_key):
        yield f"was read {_method(before)}, and is read {_method(after)}"


def _renamed_columns(old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the old name of each renamed column. PostgreSQL keeps its place and type, and adds new ones at the end."""
    found = {}
    runs = _runs(new, old.keys())
    for left, before in _runs(old, new.keys()).items():
        after = runs.get(left, [])
        # with fewer than before, one was dropped, and nothing tells which
        if len(after) >= len(before):
            pairs = zip(before, after, strict=False)
            found.update({name: was for was, name in pairs if old[was]["type"] == new[name]["type"]})
    return found


def _runs(names: Iterable[str], shared: Collection[str]) -> dict[str | None, list[str]]:
    """Return the columns that only one side has, by the column before them that both have."""
    found: dict[str | None, list[str]] = {}
    left = None
    for name in names:
        if name in shared:
            left = name
        else:
            found.setdefault(left, []).append(name)
    return found


def _method(table: KnownTable) -> str:
    return f"{table.method} by {table.replication_key}" if table.replication_key else table.method
