"""Tells what happened to a table that its log does not tell of, by the files in which its rows are.

Nothing is sent for a partition that is attached, detached, dropped or truncated by itself, nor for the rows that
ALTER TABLE rewrites (another type with USING, a new column with a volatile default). All of these change the list of
files. So does VACUUM FULL, after which the rows are the same; a comparison then finds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from singer_postgres.core.source.relations import Leaf

# the oid and the relfilenode of each partition, or of the table itself
Storage = list[list[int]]
_NAMED = 3


@dataclass(frozen=True)
class Doubt:
    """Why rows may differ from the source's.

    Attributes:
        is_rewrite: a TRUNCATE that the log does tell of would explain it.
    """

    why: str
    is_rewrite: bool


def of(leaves: Sequence[Leaf]) -> Storage:
    """Return the storage of a table, for the state."""
    return [[leaf.oid, leaf.relfilenode] for leaf in leaves]


def doubt(before: Storage | None, leaves: Sequence[Leaf]) -> Doubt | None:
    """Return what happened since an earlier run; None if nothing did that the log does not tell of.

    Args:
        before: the storage at the start of that run; None if unknown.
    """
    if before is None:
        return None
    was = {oid: node for oid, node in before}  # noqa: C416 - of lists, which dict() takes but type checkers don't
    rewritten = [leaf.name for leaf in leaves if was.get(leaf.oid, leaf.relfilenode) != leaf.relfilenode]
    # rows reach a partition that was empty by way of the log
    attached = [leaf.name for leaf in leaves if leaf.oid not in was and leaf.blocks]
    gone = was.keys() - {leaf.oid for leaf in leaves}
    said = []
    if rewritten:
        said.append(f"{_some(rewritten)} was rewritten or truncated")
    if attached:
        said.append(f"{_some(attached)} was attached")
    if gone:
        said.append("a partition was detached or dropped" if len(gone) == 1 else f"{len(gone)} partitions are gone")
    return Doubt(" and ".join(said), not (attached or gone)) if said else None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
