"""Chooses the data tests of a source's staging models, from its constraints.

A key that repeats or is null is an error. What only the source can hold at each moment is a warning: foreign keys,
lists of values, labels of enums.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tidemark.inspect.foreign_keys import ForeignKey
    from tidemark.onboard.staged_columns import StagedColumn, StagedSource, StagedTable

MAX_TESTS = 1000
# masks after which values are no longer apart
_FLAT = frozenset({"null", "redact"})
# dbt takes such an argument for a call
_CALL = re.compile(r"\s*(env_var|ref|var|source|doc)\s*\(.+\)\s*")


@dataclass(frozen=True)
class DataTest:
    """A data test of a staging model.

    Attributes:
        name: the generic test.
        column: the alias of the column that it is about; None if it is about the model.
        what: what it is about, for the count of tests that are left out.
    """

    model: str
    name: str
    what: str
    column: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    warns: bool = False


@dataclass(frozen=True)
class ChosenTests:
    """The tests of a source, and in words which are left out and why."""

    tests: tuple[DataTest, ...]
    left_out: tuple[str, ...] = ()

    def of(self, model: str, column: str | None = None) -> list[DataTest]:
        """Return the tests of a model, or of a column of it."""
        return [each for each in self._by_model.get(model, ()) if each.column == column]

    @cached_property
    def _by_model(self) -> dict[str, list[DataTest]]:
        found: dict[str, list[DataTest]] = {}
        for each in self.tests:
            found.setdefault(each.model, []).append(each)
        return found


def choose(source: StagedSource, *, most: int = MAX_TESTS) -> ChosenTests:
    """Choose the tests: first of keys, then of foreign keys, then of values.

    Args:
        most: how many there may be.
    """
    tables = list(source.tables.values())
    reasons: list[str] = []
    tests = [
        *(test for table in tables for test in _of_key(table)),
        *(test for table in tables for test in _of_foreign_keys(source, table, reasons)),
        *(test for table in tables for test in _of_value_lists(table, reasons)),
        *(test for table in tables for test in _of_enums(table)),
    ]
    counts = Counter(test.what for test in tests[most:])
    beyond = [f"{count} tests of {what} are left out, as there may be {most}" for what, count in counts.items()]
    return ChosenTests(tuple(tests[:most]), (*beyond, *reasons))


def _of_key(table: StagedTable) -> Iterator[DataTest]:
    if table.key and not _FLAT & {column.mask for column in table.key}:
        if len(table.key) == 1:
            for name in ("unique", "not_null"):
                yield DataTest(table.model, name, "keys", table.key[0].alias)
        else:
            columns = [column.alias for column in table.key]
            yield DataTest(table.model, "tidemark.unique_together", "keys", arguments={"columns": columns})
    stamp = table.columns.get(table.proposal.replication_key or "")
    if stamp and stamp.source.not_null and (stamp,) != table.key:
        yield DataTest(table.model, "not_null", "replication keys", stamp.alias)


def _of_foreign_keys(source: StagedSource, table: StagedTable, reasons: list[str]) -> Iterator[DataTest]:
    done = set()
    for key in table.proposal.table.foreign_keys:
        refers = (key.columns, key.to_schema, key.to_table, key.to_columns)
        if refers in done:
            continue
        done.add(refers)
        if why := _why_untested(source, table, key):
            reasons.append(f"{table.proposal.table}, foreign key {key.name}: {why}")
            continue
        parent = source.parent(key)
        assert parent
        arguments = {
            "columns": [table.columns[name].alias for name in key.columns],
            "to": f"ref('{parent.model}')",
            "to_columns": [parent.columns[name].alias for name in key.to_columns],
            "table": parent.proposal.raw_name,
            "source_name": parent.dbt_source,
        }
        yield DataTest(table.model, "tidemark.foreign_key", "foreign keys", arguments=arguments, warns=True)


def _why_untested(source: StagedSource, table: StagedTable, key: ForeignKey) -> str:
    """Return why a foreign key can't be tested; empty if it can."""
    parent = source.parent(key)
    if parent is None:
        return f"{key.to_schema}.{key.to_table} is not read"
    if not key.validated:
        return "the source itself has not validated it"
    if not set(key.columns) <= table.columns.keys() or not set(key.to_columns) <= parent.columns.keys():
        return "a column of it is not read"
    pairs = zip(key.columns, key.to_columns, strict=True)
    masks = [(table.columns[own].mask, parent.columns[other].mask) for own, other in pairs]
    if any(own != other or own in _FLAT for own, other in masks):
        return "its columns are not masked alike"
    return ""


def _of_value_lists(table: StagedTable, reasons: list[str]) -> Iterator[DataTest]:
    for each in table.proposal.table.value_lists:
        column = table.columns.get(each.column)
        if column is None or column.mask:
            continue
        if test := _accepted(table, column, each.values, "lists of values"):
            yield test
        else:
            reasons.append(f"{table.proposal.table}.{each.column}: dbt would take one of its values for a call")


def _of_enums(table: StagedTable) -> Iterator[DataTest]:
    listed = {each.column for each in table.proposal.table.value_lists}
    for column in table.columns.values():
        if column.source.enum_labels and not column.mask and column.source.name not in listed:
            test = _accepted(table, column, column.source.enum_labels, "labels of enums")
            if test and not column.source.type.endswith("[]"):
                yield test


def _accepted(table: StagedTable, column: StagedColumn, values: tuple[str, ...], what: str) -> DataTest | None:
    if any(_CALL.fullmatch(value) for value in values):
        return None
    # dbt puts each value between quotes as it is
    arguments = {"values": [value.replace("'", "''") for value in dict.fromkeys(values)]}
    return DataTest(table.model, "accepted_values", what, column.alias, arguments, warns=True)
