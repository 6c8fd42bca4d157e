"""Recognises triggers that set a column to the current time at each update. Pure: it reads a trigger's definition.

Only what is certain counts as proof: a BEFORE UPDATE row trigger without condition that assigns the time
unconditionally. Whatever else assigns to the column makes it doubtful, with the reason, and then a person decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from tidemark.onboard import plpgsql


@dataclass(frozen=True)
class Trigger:
    """An enabled BEFORE UPDATE row trigger.

    Attributes:
        has_condition: it has a WHEN clause.
        only_columns: it fires only if the statement sets certain columns (UPDATE OF).
        body: the function's source.
        arguments: the trigger's own arguments.
    """

    name: str
    function: str
    language: str
    body: str
    arguments: tuple[str, ...] = ()
    has_condition: bool = False
    only_columns: bool = False


@dataclass(frozen=True)
class KeptColumns:
    """The columns that a trigger sets.

    Attributes:
        proven: columns that it sets to the time at each update, with the zone that it names, if it names one.
        doubtful: other columns that it sets, with the reason for the doubt.
    """

    proven: dict[str, str | None] = field(default_factory=dict)
    doubtful: dict[str, str] = field(default_factory=dict)


class Doubt(NamedTuple):
    """Why an assignment proves nothing."""

    why: str


_CLOCK = (
    r"\(* ?(?:(?:pg_catalog ?\. ?)?(?:now|clock_timestamp|transaction_timestamp|statement_timestamp) ?\( ?\)"
    r"|(?:current_timestamp|localtimestamp)(?: ?\( ?\d ?\))?) ?\)*"
)
_CAST = r"(?: ?:: ?timestamp(?:tz)?(?: ?\( ?\d ?\))?(?: with(?:out)? time zone)?)?"
_NOW = [
    re.compile(pattern + _CAST + r" ?\)*", re.IGNORECASE)
    for pattern in (
        _CLOCK,
        rf"\(* ?(?:pg_catalog ?\. ?)?timezone ?\( ?'(?P<zone>[^']+)'(?: ?:: ?text)? ?, ?{_CLOCK} ?\)",
        rf"\(* ?{_CLOCK} at time zone \(?'(?P<zone>[^']+)'(?: ?:: ?text)?\)?",
    )
]


def kept_columns(trigger: Trigger) -> KeptColumns:
    """Return the columns that a trigger sets."""
    if trigger.language == "c" and trigger.function == "moddatetime" and trigger.arguments:
        found: dict[str, str | Doubt | None] = {trigger.arguments[0]: None}
    elif trigger.language == "plpgsql":
        found = _assigned(trigger.body)
    else:
        return KeptColumns()
    kept = KeptColumns()
    for column, zone in found.items():
        if isinstance(zone, Doubt):
            kept.doubtful[column] = f"trigger {trigger.name} {zone.why}"
        elif trigger.has_condition:
            kept.doubtful[column] = f"trigger {trigger.name} sets it only under its WHEN condition"
        elif trigger.only_columns:
            kept.doubtful[column] = f"trigger {trigger.name} sets it only at updates of certain columns"
        else:
            kept.proven[column] = zone
    return kept


def _assigned(body: str) -> dict[str, str | Doubt | None]:
    """Return the columns of NEW that plpgsql code assigns the time to: the zone that it names, or a doubt."""
    assignments, returns_before = plpgsql.read(body)
    found: dict[str, str | Doubt | None] = {}
    for column in dict.fromkeys(each.column for each in assignments):
        own = [(number, each) for number, each in enumerate(assignments) if each.column == column]
        zones = [_zone(each.expression) for _, each in own]
        times = [zone for zone in zones if not isinstance(zone, Doubt)]
        if not times:
            # not a stamp: columns that a trigger computes are no concern of this module
            continue
        unconditional = [number for number, each in own if not each.is_conditional]
        if len(times) < len(zones):
            found[column] = Doubt("also sets it to something else than the time")
        elif not unconditional:
            found[column] = Doubt("sets it only under a condition (IF, CASE or LOOP)")
        elif returns_before is not None and returns_before <= unconditional[0]:
            found[column] = Doubt("may return before it sets it")
        else:
            found[column] = times[-1]
    return found


def _zone(expression: str) -> str | Doubt | None:
    """Return the zone that an expression of the current time names; None if it names none."""
    for pattern in _NOW:
        if (match := pattern.fullmatch(expression)) and expression.count("(") == expression.count(")"):
            return match.groupdict().get("zone")
    return Doubt("sets it to something else than the time")
