"""Compares a source's tables with what was written for them: which are new, renamed, changed or gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

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
    followers = _followers(list(old), new.keys()), _followers(list(new), old.keys())
    renamed = {}
    for name in new.keys() - old.keys():
        # PostgreSQL keeps a renamed column's place and type
        same = [
            each
            for each in old.keys() - new.keys()
            if followers[0][each] == followers[1][name] and old[each]["type"] == new[name]["type"]
        ]
        if len(same) == 1:
            renamed[name] = same[0]
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


def _followers(names: list[str], shared: Collection[str]) -> dict[str, tuple[str | None, str | None]]:
    """Return, for each column, the nearest columns before and after it that both have."""
    found: dict[str, tuple[str | None, str | None]] = {}
    for place, name in enumerate(names):
        left = next((each for each in reversed(names[:place]) if each in shared), None)
        right = next((each for each in names[place + 1 :] if each in shared), None)
        found[name] = (left, right)
    return found


def _method(table: KnownTable) -> str:
    return f"{table.method} by {table.replication_key}" if table.replication_key else table.method
