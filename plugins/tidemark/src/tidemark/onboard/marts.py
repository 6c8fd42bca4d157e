"""Drafts a first dimension and a first fact, where a source's foreign keys show them.

The fact is the table with the most foreign keys, and among those the one with the most rows. The dimension is a table
that it refers to. Both are built by key, with a contract; they are disabled until somebody confirms them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidemark.onboard import descriptions, identifiers, warehouse_types
from tidemark.onboard.dbt_tests import DataTest
from tidemark.onboard.escaping import jinja
from tidemark.onboard.render import render
from tidemark.onboard.staged_columns import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tidemark.inspect.foreign_keys import ForeignKey
    from tidemark.onboard.staged_columns import StagedColumn, StagedSource, StagedTable

# descriptions and types of what a staging model adds
_ADDED = {"is_deleted": ("booleans", "boolean"), "loaded_at": ("timestamps", "timestamp with time zone")}


@dataclass(frozen=True)
class MartColumn:
    """A column of a draft.

    Attributes:
        alias: its name.
        select: the expression that it is selected by.
        type: its type in the contract.
    """

    alias: str
    select: str
    type: str
    group: str
    description: str
    is_key: bool = False


@dataclass(frozen=True)
class Star:
    """A fact and a dimension that it refers to.

    Attributes:
        reference: the fact's foreign key.
        attribute: the dimension's column that the fact shows; None if it has no text, or if the types don't join.
    """

    fact: StagedTable
    dimension: StagedTable
    reference: ForeignKey
    attribute: StagedColumn | None

    @property
    def streams(self) -> tuple[str, str]:
        """The streams of both."""
        return self.fact.proposal.table.stream, self.dimension.proposal.table.stream


def find(source: StagedSource, *, before: tuple[str, str] | None = None) -> Star | None:
    """Return the fact and the dimension that the foreign keys show; None if they show none.

    Args:
        before: the streams of the last time. They stay, so that a draft does not become another one.
    """
    found = [star for table in source.tables.values() if _has_typed_key(table) for star in _stars(source, table)]
    return max(found, key=lambda star: (star.streams == before, *_rank(star)), default=None)


def _stars(source: StagedSource, fact: StagedTable) -> Iterable[Star]:
    for reference in fact.proposal.table.foreign_keys:
        dimension = source.parent(reference)
        if (
            dimension is None
            or dimension is fact
            or not _has_typed_key(dimension)
            or {*reference.to_columns} != {each.source.name for each in dimension.key}
            or not set(reference.columns) <= fact.columns.keys()
        ):
            continue
        pairs = [
            (fact.columns[own], dimension.columns[other])
            for own, other in zip(reference.columns, reference.to_columns, strict=True)
        ]
        texts = [each for each in dimension.columns.values() if each.group == "text" and _type(each)]
        joined = all(warehouse_types.joins(_type(own), _type(other)) and own.mask == other.mask for own, other in pairs)
        yield Star(fact, dimension, reference, texts[0] if texts and joined else None)


def _rank(star: Star) -> tuple[int, float, bool, float, str, str]:
    fact, dimension = star.fact.proposal.table, star.dimension.proposal.table
    keys = len({(each.columns, each.to_schema, each.to_table) for each in fact.foreign_keys})
    return keys, fact.rows, star.attribute is not None, dimension.rows, str(fact), str(dimension)


def _type(column: StagedColumn) -> str | None:
    return warehouse_types.in_mart(column.source, column.mask)


def _has_typed_key(table: StagedTable) -> bool:
    """Return whether a table has a key of known types: a cast would keep PostgreSQL from finding a key by an index."""
    return bool(table.key) and all(
        column.type is not None and _type(column) == column.type and column.mask not in {"null", "redact"}
        for column in table.key
    )


def files(star: Star, *, enabled: bool = False) -> dict[str, str]:
    """Return the text of each draft's SQL and YAML, by file name."""
    return {**_dimension(star.dimension, enabled=enabled), **_fact(star, enabled=enabled)}


def _columns(table: StagedTable, prefix: str, added: Sequence[str]) -> list[MartColumn]:
    key = {column.alias for column in table.key}
    found = []
    for column in table.columns.values():
        if not (type_ := _type(column)):
            continue
        name = f"{prefix}{column.sql}"
        select = name if type_ == column.type else f"{name}::{type_} as {column.sql}"
        described = descriptions.of_column(table.proposal.table, column.source)
        found.append(MartColumn(column.alias, select, type_, column.group, described, column.alias in key))
    for name in added:
        group, type_ = _ADDED[name]
        found.append(MartColumn(name, f"{prefix}{name}", type_, group, f"{{{{ doc('{name}') }}}}"))
    return found


def _dimension(table: StagedTable, *, enabled: bool) -> dict[str, str]:
    name = f"dim_{table.entity}"
    columns = _columns(table, "", list(_ADDED))
    key = [column.alias for column in table.key]
    text = render(
        "dimension.sql.jinja",
        enabled=enabled,
        unique_key=_python(key),
        entry=_entry(table.model, {each: identifiers.quoted(each) for each in key}),
        staged=table.model,
        **_grouped(columns),
    )
    grain = jinja(f"One row per {' and '.join(key)} of {table.proposal.table}, with deleted rows marked.")
    return {f"{name}.sql": text, f"{name}.yml": _properties(name, grain, columns)}


def _fact(star: Star, *, enabled: bool) -> dict[str, str]:
    table, name = star.fact, f"fct_{star.fact.entity}"
    joins = star.attribute is not None
    columns = _columns(table, "facts." if joins else "", ["loaded_at"])
    key = [column.alias for column in table.key]
    entries = [_entry(table.model, {each: identifiers.quoted(each) for each in key})]
    indexes, joined = [], []
    if star.attribute is not None:
        pairs = [
            (table.columns[own], star.dimension.columns[other])
            for own, other in zip(star.reference.columns, star.reference.to_columns, strict=True)
        ]
        columns.append(_attribute(star, [column.alias for column in columns]))
        own_names = [own.alias for own, _ in pairs]
        mapped = {own.alias: other.sql for own, other in pairs}
        entries.append(_entry(f"dim_{star.dimension.entity}", mapped, [star.attribute.alias]))
        indexes = [f"{{'columns': {_python(own_names, as_list=True)}}}"]
        joined = [f"facts.{own.sql} = members.{other.sql}" for own, other in pairs]
    text = render(
        "fact.sql.jinja",
        enabled=enabled,
        unique_key=_python(key),
        entries=entries,
        indexes=indexes,
        staged=table.model,
        dimension=f"dim_{star.dimension.entity}" if joins else None,
        joined=joined,
        **_grouped(columns),
    )
    grain = jinja(f"One row per {' and '.join(key)} of {table.proposal.table}. Rows that were deleted are not in it.")
    return {f"{name}.sql": text, f"{name}.yml": _properties(name, grain, columns)}


def _attribute(star: Star, taken: Iterable[str]) -> MartColumn:
    column = star.attribute
    assert column
    type_ = _type(column)
    assert type_
    entity = star.dimension.entity.rpartition("__")[2]
    alias = identifiers.unique([f"{entity}_{column.alias}"], taken=taken)[f"{entity}_{column.alias}"]
    described = f"{column.alias} of dim_{star.dimension.entity}; null while that row is missing."
    return MartColumn(alias, f"members.{column.sql} as {identifiers.quoted(alias)}", type_, "text", described)


def _grouped(columns: list[MartColumn]) -> dict[str, Any]:
    groups = [(name, [each.select for each in columns if each.group == name]) for name in GROUPS]
    groups = [(name, found) for name, found in groups if found]
    return {"groups": groups, "last_group": lambda name: name == groups[-1][0]}


def _properties(name: str, grain: str, columns: list[MartColumn]) -> str:
    key = [column.alias for column in columns if column.is_key]
    single = len(key) == 1
    described = [
        {
            "name": column.alias,
            "quote": identifiers.is_reserved(column.alias),
            "data_type": column.type,
            "description": column.description,
            "constraints": (
                ("[{type: not_null}, {type: primary_key}]" if single else "[{type: not_null}]") if column.is_key else ""
            ),
            "tests": [DataTest(name, test, "keys") for test in ("unique", "not_null")]
            if column.is_key and single
            else [],
        }
        for group in GROUPS
        for column in columns
        if column.group == group
    ]
    together = DataTest(name, "tidemark.unique_together", "keys", arguments={"columns": key})
    model = {
        "name": name,
        "description": grain,
        "constraints": "" if single else f"{{type: primary_key, columns: [{', '.join(map(_in_key, key))}]}}",
        "tests": [] if single else [together],
        "columns": described,
    }
    return render("models.yml.jinja", models=[model])


def _in_key(alias: str) -> str:
    # dbt writes the names of a constraint's columns as they are
    return f"'{identifiers.quoted(alias)}'" if identifiers.is_reserved(alias) else alias


def _python(values: Sequence[str], *, as_list: bool = False) -> str:
    return repr(values[0]) if len(values) == 1 and not as_list else repr(list(values))


def _entry(model: str, key: Mapping[str, str], columns: Sequence[str] = ()) -> str:
    """Return an entry of `changed_by`; `key` maps the mart's columns to expressions over the input."""
    ((own, other), *more) = key.items()
    plain = not more and other == identifiers.quoted(own)
    only = f", 'columns': {list(columns)!r}" if columns else ""
    return f"{{'model': {model!r}, 'key': {repr(own) if plain else repr(dict(key))}{only}}}"
