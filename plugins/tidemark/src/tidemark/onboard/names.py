"""Names in the warehouse: raw schemas, pairs of tap and target, staging models; and what happens if they collide. Pure.

The target puts all streams of a tap into one schema, each under its table's name. So of two schemas with a table of the
same name, the second gets a pair of tap and target of its own, with a raw schema of its own. No name depends on the
order in which tables were found, and names that were given before stay (`kept`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidemark.onboard.words import snake_case

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tidemark.onboard.source_tables import SourceTable

# Of PostgreSQL's 63 bytes, dbt takes up to 12 for names that it makes from a model's, such as `…__dbt_backup`.
_MODEL_BYTES = 51
_SCHEMA_BYTES = 63
_HASH_LENGTH = 6
# the source whose raw schema is the target's default
FIRST = "postgres"


@dataclass(frozen=True)
class TableNames:
    """A table's names in the warehouse. `pair` is empty for the source's own tap and target."""

    model: str
    raw_schema: str
    pair: str = ""


@dataclass(frozen=True)
class Names:
    """The names of a source's tables.

    Attributes:
        tables: by stream.
        ambiguous: streams that are named like another one, each with the reason to leave it out.
    """

    raw_schema: str
    tables: dict[str, TableNames]
    ambiguous: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def raw_schema(source: str) -> str:
    """Return the usual raw schema of a source, or of a further pair."""
    return "raw" if source == FIRST else _cut(f"raw_{snake_case(source) or 'source'}", _SCHEMA_BYTES, source)


def names(
    source: str,
    tables: Iterable[SourceTable],
    *,
    own_raw_schema: str | None = None,
    taken: Iterable[str] = (),
    kept: Mapping[str, TableNames] | None = None,
) -> Names:
    """Name the tables that are read.

    Args:
        own_raw_schema: the schema of the source's own target; its usual one by default.
        taken: names of models of other sources.
        kept: names that an earlier onboarding gave, by stream.
    """
    kept = kept or {}
    every = sorted(tables, key=lambda table: (table.schema, table.name))
    ambiguous = {}
    streams: dict[str, SourceTable] = {}
    for table in every:
        other = streams.setdefault(table.stream, table)
        if other is not table:
            ambiguous[str(table)] = f"the tap has the same name for it and for {other}: {table.stream}"
    read = list(streams.values())
    own = own_raw_schema or raw_schema(source)
    pairs = _pairs(source, read, kept)
    warnings = tuple(
        f"schema {schema} has tables of the same name as another schema: it is loaded by a pair of its own, "
        f"tap-{pair} and target-{pair}, into {raw_schema(pair)}"
        for schema, pair in sorted(pairs.items())
        if pair
    )
    by_table = _pairs_of_tables(source, read, pairs, kept)
    models = _models(source, read, by_table, set(taken), kept)
    found = {
        stream: kept.get(stream) or TableNames(models[stream], raw_schema(pair) if pair else own, pair)
        for stream, pair in by_table.items()
    }
    return Names(own, found, ambiguous, warnings)


def _pairs(source: str, tables: list[SourceTable], kept: Mapping[str, TableNames]) -> dict[str, str]:
    """Return each schema's pair: the source's own for the schemas that fit together, beginning with public."""
    known = {table.schema: kept[table.stream].pair for table in tables if table.stream in kept}
    by_schema: dict[str, set[str]] = {}
    for table in tables:
        by_schema.setdefault(table.schema, set()).add(table.name)
    order = sorted(
        by_schema, key=lambda schema: (schema not in known or bool(known[schema]), schema != "public", schema)
    )
    together: set[str] = set()
    pairs: dict[str, str] = {}
    for schema in order:
        collides = bool(by_schema[schema] & together)
        if (schema in known and not known[schema]) or (schema not in known and not collides):
            together |= by_schema[schema]
            pairs[schema] = ""
        else:
            pairs[schema] = known.get(schema) or f"{source}_{snake_case(schema) or 'schema'}"
    again = Counter(pair for pair in pairs.values() if pair)
    return {
        schema: f"{pair}_{_hash(schema)}" if pair and again[pair] > 1 and schema not in known else pair
        for schema, pair in pairs.items()
    }


def _pairs_of_tables(
    source: str, tables: list[SourceTable], pairs: dict[str, str], kept: Mapping[str, TableNames]
) -> dict[str, str]:
    """Return each table's pair: its schema's, unless a table that was there before has its place."""
    found = {table.stream: kept[table.stream].pair for table in tables if table.stream in kept}
    places = {(found[table.stream], table.name) for table in tables if table.stream in found}
    for table in tables:
        if table.stream not in found:
            pair = pairs[table.schema]
            if (pair, table.name) in places:
                pair = f"{source}_{snake_case(table.schema) or _hash(table.schema)}"
            places.add((pair, table.name))
            found[table.stream] = pair
    return found


def _models(
    source: str, tables: list[SourceTable], pairs: dict[str, str], taken: set[str], kept: Mapping[str, TableNames]
) -> dict[str, str]:
    """Return the names of the staging models, which are unique and legal as names of files and views."""
    wanted = {table.stream: _model(pairs[table.stream] or source, table.name) for table in tables}
    exact = {table.stream for table in tables if snake_case(table.name) == table.name}
    again = Counter(wanted.values())
    # a name that needed no change stays as it is, so that a table added later can't take it
    own = {wanted[stream] for stream in exact}
    taken = taken | {names.model for names in kept.values()}
    found = {}
    for table in tables:
        name = wanted[table.stream]
        collides = name in taken or (again[name] > 1 and (table.stream not in exact or name not in own))
        found[table.stream] = _cut(f"{name}_{_hash(str(table))}", _MODEL_BYTES, str(table)) if collides else name
    return found


def _model(prefix: str, table: str) -> str:
    return _cut(
        f"stg_{snake_case(prefix) or 'source'}__{snake_case(table) or 't_' + _hash(table)}", _MODEL_BYTES, table
    )


def _cut(name: str, length: int, of: str) -> str:
    """Return a name that is short enough; a hash of the whole name keeps it unique."""
    return name if len(name) <= length else f"{name[: length - _HASH_LENGTH - 1].rstrip('_')}_{_hash(of)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]
