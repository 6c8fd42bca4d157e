"""Finds the attnums of the columns that a Relation message names: the log has the table as it was, without attnums."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


def attnums(
    names: Sequence[str], live: Mapping[str, int], earlier: Mapping[str, int], generated: Collection[int] = ()
) -> list[int]:
    """Return the attnum of each column, 0 if it is unknown.

    A message has the columns in the order of their attnums, and all that the table had. So a column that it names, and
    the table does not, is the next one of the table that the message does not name, unless a dropped one may be between
    them: then it was renamed. One that the table has dropped needs no attnum.

    Args:
        names: the message's columns.
        live: the columns that the table has now.
        earlier: those that it had at the end of the last run.
        generated: the attnums of generated columns, which a message may lack.

    >>> attnums(["id", "old"], {"id": 1, "new": 2, "later": 3}, {})
    [1, 2]
    >>> attnums(["id", "dropped", "last"], {"id": 1, "last": 3}, {"id": 1, "dropped": 2})
    [1, 2, 3]
    >>> attnums(["id", "a"], {"id": 1, "b": 3}, {})
    [1, 0]
    >>> attnums(["id", "old"], {"id": 1, "twice": 2, "new": 3}, {}, {2})
    [1, 3]
    """
    by_attnum = {attnum: name for name, attnum in live.items()}
    named = [live.get(name, earlier.get(name, 0)) for name in names]
    known = [attnum for attnum in named if attnum]
    if known != sorted(set(known)):
        # names have moved between columns: only those from before can be trusted
        named = [earlier.get(name, 0) for name in names]
    found: list[int] = []
    for attnum in named:
        following = found[-1] + 1 if found and found[-1] else 0 if found else 1
        while following in generated:
            following += 1
        is_renamed = following in by_attnum and following not in named
        found.append(attnum or (following if is_renamed else 0))
    return found
