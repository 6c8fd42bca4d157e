"""Legal names for dbt models: snake_case aliases of columns, and identifiers quoted only where PostgreSQL needs it."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from tidemark.onboard import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# PostgreSQL cuts longer identifiers
MAX_BYTES = 63
# the columns that each staging model adds, by the raw column that they are made of
ADDED = {
    "is_deleted": "_sdc_deleted_at",
    "deleted_at": "_sdc_deleted_at",
    "extracted_at": "_sdc_extracted_at",
    "loaded_at": "_sdc_batched_at",
    "loaded_xid": "_tidemark_loaded_xid",
}

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
# PostgreSQL's keywords that can't be a column's name, or not everywhere. Around any other name, SQLFluff finds quotes
# needless.
# fmt: off
_RESERVED = frozenset({
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization", "binary",
    "both", "case", "cast", "check", "collate", "collation", "column", "concurrently", "constraint", "create",
    "cross", "current_catalog", "current_date", "current_role", "current_schema", "current_time",
    "current_timestamp", "current_user", "default", "deferrable", "desc", "distinct", "do", "else", "end", "except",
    "false", "fetch", "for", "foreign", "freeze", "from", "full", "grant", "group", "having", "ilike", "in",
    "initially", "inner", "intersect", "into", "is", "isnull", "join", "lateral", "leading", "left", "like",
    "limit", "localtime", "localtimestamp", "natural", "not", "notnull", "null", "offset", "on", "only", "or",
    "order", "outer", "overlaps", "placing", "primary", "references", "returning", "right", "select",
    "session_user", "similar", "some", "symmetric", "system_user", "table", "tablesample", "then", "to", "trailing",
    "true", "union", "unique", "user", "using", "variadic", "verbose", "when", "where", "window", "with",
    "commutator", "connect", "hashes", "merges", "negator", "rightarg",
})
# fmt: on


def is_reserved(name: str) -> bool:
    """Return whether an identifier must be quoted although it looks plain."""
    return name in _RESERVED


def quoted(name: str) -> str:
    """Return an identifier as SQL, quoted only if it must be."""
    if _PLAIN.fullmatch(name) and not is_reserved(name):
        return name
    return '"' + name.replace('"', '""') + '"'


def legal(name: str) -> str:
    """Return a name in snake case that needs no quotes for its letters; empty if nothing is left of it."""
    text = words.snake_case(name)
    return f"_{text}" if text[:1].isdigit() else text


def cut(name: str, room: int = MAX_BYTES) -> str:
    """Return a name of at most `room` characters. What is cut off is replaced by a hash, so that names stay apart."""
    if len(name) <= room:
        return name
    return f"{name[: room - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def unique(
    names: Iterable[str], *, taken: Iterable[str] = (), before: Mapping[str, str] | None = None, empty: str = "column"
) -> dict[str, str]:
    """Give each name an alias in snake case. No two are equal, and the result depends on nothing but the arguments.

    A name that is its own alias keeps it. The others that collide are numbered in their order.

    Args:
        names: distinct names.
        taken: aliases that nobody may have; such a name gets the prefix `source_`.
        before: the aliases that names had before, which they keep, whatever names are new.
        empty: what a name without any ASCII letter or digit becomes, with its number.
    """
    names, reserved = list(names), set(taken)
    # A name that is plain belongs to who has it in the source
    plain = {name for name in names if legal(name) == name and name not in reserved}
    found = {name: alias for name, alias in (before or {}).items() if name in names and alias not in reserved}
    used = reserved | set(found.values())
    for name in sorted(names, key=lambda each: each not in plain):
        if name in found:
            continue
        alias = legal(name) or f"{empty}_{names.index(name) + 1}"
        alias = cut(f"source_{alias}" if alias in reserved else alias)
        numbered, number = alias, 1
        while numbered in used:
            number += 1
            numbered = f"{cut(alias, MAX_BYTES - len(str(number)) - 1)}_{number}"
        found[name] = numbered
        used.add(numbered)
    return {name: found[name] for name in names}
