"""Chooses how a table is read, with the reason in words. Pure.

No row may be missed. FULL_TABLE is always right, so INCREMENTAL needs proof, which is a trigger, or a person's word.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from singer_postgres.core.source.relations import KINDS
from singer_postgres.core.wire import OWN
from tidemark.inspect.column_names import is_business_date, looks_like_modification
from tidemark.onboard import cost
from tidemark.onboard.proposal import Method, Question
from tidemark.onboard.stamps import has_clock_default, has_zone, is_timestamp
from tidemark.onboard.words import listed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tidemark.onboard.source_tables import SourceColumn, SourceTable

_KEYLESS = (
    "no key: all its rows are written again if any differs, incremental models and snapshots can't be built on it, and "
    "no test can find a row that is there twice"
)
# how a reason ends if it is the word of a person
_BY_HAND, _CONFIRMED, _TRUSTED = "was chosen explicitly", "as was confirmed", "(--trust-defaults)"
BY_CHOICE = "left out by choice; name it with --tables to read it"
_INTEGERS = ("smallint", "integer", "bigint")


@dataclass(frozen=True)
class Answers:
    """What a person said before the proposal was made.

    Attributes:
        trust_defaults: the application sets each modification stamp at each update.
        incremental: replication keys by stream, each an explicit choice.
        log_based: streams that are to follow the source's log, each an explicit choice.
        named: streams that were named exactly; views and foreign tables are read only then.
    """

    trust_defaults: bool = False
    incremental: Mapping[str, str] = field(default_factory=dict)
    log_based: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decision:
    """How a table is read, and why; the fields are those of TableProposal."""

    method: Method
    reason: str
    replication_key: str | None = None
    question: Question | None = None
    warnings: tuple[str, ...] = ()
    cost: str = ""


def decide(table: SourceTable, answers: Answers, role: str, *, has_log: bool = False) -> Decision:
    """Choose a method.

    Args:
        role: the role that the tap connects as.
        has_log: the source writes a logical log.
    """
    decision = _decided(table, answers, role)
    is_dear = decision.method is Method.full_table and not cost.is_cheap(table)
    if has_log and is_dear and why_not_log_based(table) is None:
        offer = (
            f"the source writes a logical log, and {table} has a primary key: LOG_BASED would read only its changes, "
            f"deletes too (--log-based {table})"
        )
        return replace(decision, warnings=(offer, *decision.warnings))
    return decision


def _decided(table: SourceTable, answers: Answers, role: str) -> Decision:
    if reason := _why_unreadable(table, role) or _why_unwanted(table, answers):
        return Decision(Method.left_out, reason)
    warnings = [*_about_kind(table), *_about_key(table)]
    if table.kind in "vmf":
        return _whole(table, f"a {KINDS[table.kind]} that was named", warnings)
    if table.stream in answers.log_based:
        return _log_based(_BY_HAND, warnings)
    if chosen := answers.incremental.get(table.stream):
        return _incremental(table, table.column(chosen), f"{chosen} {_BY_HAND}", warnings)
    if best := next(iter(_stamps(table)), None):
        return _by_stamp(table, best, answers, warnings)
    return _whole(table, "no column shows when a row changed", warnings, question=_insert_only(table))


def _by_stamp(table: SourceTable, column: SourceColumn, answers: Answers, warnings: list[str]) -> Decision:
    """Choose for a table whose `column` may hold the time of a row's last change."""
    name, trigger = column.name, table.kept_by_trigger.get(column.name)
    if not table.key:
        reason = f"{name} may show changes, but without a key a row that is read again can't be told from a new one"
        return _whole(table, reason, warnings)
    if trigger and column.not_null:
        return _incremental(
            table, column, f"{name} is NOT NULL, and trigger {trigger} sets it at each update", warnings
        )
    if not answers.trust_defaults:
        return _whole(table, _doubt(table, column), warnings, question=_question(table, column))
    if not trigger:
        unproven = (
            f"nothing in the database proves that {name} is set at each update: a row changed without it is missed"
        )
        warnings = [unproven, *warnings]
    return _incremental(table, column, f"{name} is taken as set at each update {_TRUSTED}", warnings)


def confirm(table: SourceTable, question: Question) -> Decision:
    """Return the decision after a person answered a question with yes."""
    what = "rows are never updated" if question.insert_only else "the application sets it at each update"
    reason = f"{question.column}: {what}, {_CONFIRMED}"
    return _incremental(table, table.column(question.column), reason, [*_about_kind(table), *_about_key(table)])


def by_hand(table: SourceTable, method: Method, replication_key: str | None = None) -> Decision:
    """Return the decision for a method that a person chose."""
    warnings = [*_about_kind(table), *_about_key(table)]
    if method is Method.incremental and replication_key:
        return _incremental(table, table.column(replication_key), f"{replication_key} {_BY_HAND}", warnings)
    if method is Method.log_based:
        return _log_based(_BY_HAND, warnings)
    if method is Method.left_out:
        return Decision(Method.left_out, BY_CHOICE)
    return _whole(table, "chosen explicitly", warnings)


def is_a_persons_word(reason: str) -> bool:
    """Return whether a person made a table INCREMENTAL, and not what its catalogs prove."""
    return reason.endswith((_BY_HAND, _CONFIRMED, _TRUSTED))


def why_not_incremental(table: SourceTable, column: str) -> str | None:
    """Return why a column can't be the replication key of a table, whatever a person says; None if it can."""
    found = next((each for each in table.columns if each.name == column), None)
    if found is None:
        return f"{table} has no column {column}"
    if not table.key:
        return f"{table} has no key, and an INCREMENTAL stream needs one"
    if not found.readable:
        return f"{table}.{column} can't be read"
    if not is_timestamp(found) and found.base_type not in {*_INTEGERS, "date"}:
        return f"{table}.{column} is of type {found.type}; a replication key is a timestamp, date or integer"
    return None


def why_not_log_based(table: SourceTable) -> str | None:
    """Return why a table can't follow the source's log; None if it can."""
    if table.kind not in "rp":
        return f"{table} is a {KINDS[table.kind]}, which has no changes in the log"
    if table.has_children and table.kind == "r":
        return f"{table} has tables that inherit from it, whose rows are not its own in the log"
    if not table.has_primary_key:
        return f"{table} has no primary key, which identifies rows in the log"
    return None


def _why_unreadable(table: SourceTable, role: str) -> str | None:
    if not table.columns:
        return "it has no columns"
    if not table.schema_usable:
        return f"{role} may not use schema {table.schema}; the missing grants are listed"
    if not table.readable:
        return f"{role} may not read it; the missing grants are listed"
    if closed := [name for name in table.key if not table.column(name).readable]:
        return f"{role} may not read its key ({listed(closed)}); the missing grants are listed"
    if table.hides_rows:
        return f"row-level security may hide rows from {role}: a copy without them would look complete"
    return None


def _why_unwanted(table: SourceTable, answers: Answers) -> str | None:
    if table.name.startswith(OWN):
        return f"names that begin with {OWN} are reserved for the warehouse's own tables; rename it in a view"
    if table.stream in answers.named:
        return None
    if table.kind in "vm":
        return f"a {KINDS[table.kind]}: its rows come from tables that are read themselves; name it to read it too"
    if table.kind == "f":
        return "a foreign table: its rows are in another server, which is better read directly; name it to read it here"
    return None


def _about_kind(table: SourceTable) -> list[str]:
    found = []
    if table.has_children:
        found.append("other tables inherit from it, and it is read with their rows: its key may repeat; leave one out")
    if table.parents and table.kind == "r":
        found.append(f"it inherits from {listed(table.parents)}, where its rows are read too")
    if table.kind == "f":
        found.append("a foreign table: each run reads all of it through the source's server")
    return found


def _about_key(table: SourceTable) -> list[str]:
    if table.kind in "vmf":
        return [f"{_KEYLESS}; name its key in `metadata` (table-key-properties: [COLUMN])"]
    if table.key:
        if table.has_primary_key:
            return []
        return [f"no primary key; its key is the unique index on ({', '.join(table.key)})"]
    if near := next(iter(table.unique), None):
        nullable = [name for name in near if not table.column(name).not_null]
        if nullable and not table.has_children:
            return [f"{_KEYLESS}. Its unique index on ({', '.join(near)}) would do if {listed(nullable)} were NOT NULL"]
    return [_KEYLESS]


def _stamps(table: SourceTable) -> list[SourceColumn]:
    """Return the columns that may hold the time of a row's last change, the best one first."""
    found = [
        column
        for column in table.columns
        if is_timestamp(column)
        and column.readable
        and not column.is_generated
        and column.name not in table.key
        and (
            looks_like_modification(column.name)
            or (column.name in table.kept_by_trigger and not is_business_date(column.name))
        )
    ]

    def rank(column: SourceColumn) -> tuple[bool, ...]:
        proven = column.name in table.kept_by_trigger
        return (
            not (proven and column.not_null),
            not proven,
            not column.not_null,
            column.name not in table.doubtful_triggers,
            not has_zone(column),
            not has_clock_default(column),
        )

    return sorted(found, key=rank)


def _doubt(table: SourceTable, column: SourceColumn) -> str:
    name = column.name
    if name in table.kept_by_trigger:
        return f"{name} is kept by trigger {table.kept_by_trigger[name]}, but may be null"
    if name in table.doubtful_triggers:
        return f"{name} is no proof of a change: {table.doubtful_triggers[name]}"
    if has_clock_default(column):
        return f"{name} has only a default: no trigger sets it at an update"
    return f"{name} looks like a modification stamp, but no trigger sets it"


def _question(table: SourceTable, column: SourceColumn) -> Question:
    if column.name in table.kept_by_trigger:
        text = f"read by {column.name}? Rows without a value are read again in each run"
    elif column.name in table.doubtful_triggers:
        text = (
            f"does {table.doubtful_triggers[column.name].split(' sets ')[0]} set {column.name} whenever a row changes?"
        )
    elif has_clock_default(column):
        text = f"{column.name}: default only: does the application set it at each update?"
    else:
        text = f"does the application set {column.name} at each insert and update?"
    return Question(column.name, text)


def _insert_only(table: SourceTable) -> Question | None:
    """Return the question whether rows are never updated, for a large table with a number or time of insertion."""
    if cost.is_cheap(table) or not table.key:
        return None
    for column in table.columns:
        numbered = column.is_identity or "nextval(" in (column.default or "")
        if column.readable and numbered and column.base_type in _INTEGERS:
            text = f"are rows only inserted, never updated? Then {column.name} can be the replication key"
            return Question(column.name, text, insert_only=True)
    return None


def _whole(table: SourceTable, reason: str, warnings: list[str], question: Question | None = None) -> Decision:
    price, verdict = cost.whole(table), "read whole, it is cheap"
    if table.kind in "vf":
        price, verdict = "unknown: it has no statistics", "read whole"
    elif not cost.is_cheap(table):
        asked = f"; a yes would make it INCREMENTAL: {question.text}" if question else ""
        warnings = [f"each run reads all of it ({price}){asked}", *warnings]
        verdict = "only reading it whole is right"
    reason = f"{reason}; {verdict}"
    return Decision(Method.full_table, reason, question=question, warnings=tuple(warnings), cost=price)


def _log_based(reason: str, warnings: list[str]) -> Decision:
    found = ["needs a slot and a publication in the source, which the first run makes, or prints for an administrator"]
    price = "its changes in the source's log"
    return Decision(Method.log_based, f"following the log {reason}", warnings=(*found, *warnings), cost=price)


def _incremental(table: SourceTable, column: SourceColumn, reason: str, warnings: list[str]) -> Decision:
    found = list(warnings)
    if not column.not_null:
        found.append(f"{column.name} can be null: rows without a value are read again in each run")
    if not is_timestamp(column):
        found.append(f"{column.name} is no time: a row that changes but keeps its value is not read again")
    if column.name in table.kept_by_trigger and not has_clock_default(column):
        found.append(f"an insert's {column.name} is the application's: it has no default of the current time")
    if column.name not in table.indexed and not cost.is_cheap(table):
        found.append(f"no index begins with {column.name}, so each run scans {cost.shown_bytes(table.bytes)}")
    price = "rows changed since the last run"
    return Decision(Method.incremental, reason, column.name, warnings=tuple(found), cost=price)
