"""Recognises triggers that set a column to the current time at each update. Pure: it reads a trigger's definition.

Only what is certain counts as proof: a BEFORE UPDATE row trigger without condition that assigns the time
unconditionally. Whatever else assigns to the column makes it doubtful, with the reason, and then a person decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple


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


class _Assignment(NamedTuple):
    column: str
    expression: str
    is_conditional: bool


_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)
    | (?P<text>[eE]?'(?:[^'\\]|''|\\.)*'|\$(\w*)\$.*?\$\3\$)
    | (?P<name>"(?:[^"]|"")+")
    | (?P<word>[^\W\d]\w*)
    | (?P<symbol>:=|::|<<|>>|\d+|\S)""",
    re.VERBOSE | re.DOTALL,
)
# a statement begins after one of these
_BEFORE_STATEMENT = frozenset({";", "then", "else", "begin", "loop", ">>", "declare"})
_CONDITIONAL = frozenset({"if", "case", "loop", "handler"})
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
# inside an UPDATE trigger these are true
_IS_UPDATE = re.compile(
    r"\(* ?tg_op ?(?:= ?'update'|in ?\( ?(?:'insert' ?, ?)?'update'(?: ?, ?'insert')? ?\)"
    r"|= ?'insert' or tg_op ?= ?'update'|= ?'update' or tg_op ?= ?'insert') ?\)*",
    re.IGNORECASE,
)


def kept_columns(trigger: Trigger) -> KeptColumns:
    """Return the columns that a trigger sets."""
    if trigger.language == "c" and trigger.function == "moddatetime" and trigger.arguments:
        found: dict[str, str | None | Doubt] = {trigger.arguments[0]: None}
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


class Doubt(NamedTuple):
    """Why an assignment proves nothing."""

    why: str


def _assigned(body: str) -> dict[str, str | None | Doubt]:
    """Return the columns of NEW that plpgsql code assigns the time to: the zone that it names, or a doubt."""
    assignments, returns_early_at = _statements(body)
    found: dict[str, str | None | Doubt] = {}
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
        elif returns_early_at is not None and returns_early_at <= unconditional[0]:
            found[column] = Doubt("may return before it sets it")
        else:
            found[column] = times[-1]
    return found


def _zone(expression: str) -> str | None | Doubt:
    """Return the zone that an expression of the current time names; None if it names none."""
    for pattern in _NOW:
        if (match := pattern.fullmatch(expression)) and expression.count("(") == expression.count(")"):
            return match.groupdict().get("zone")
    return Doubt("sets it to something else than the time")


def _statements(body: str) -> tuple[list[_Assignment], int | None]:
    """Return the assignments to columns of NEW, and before which of them, by number, the code may first return."""
    tokens = [
        (match.lastgroup, match[0]) if match.lastgroup != "word" else ("word", match[0].lower())
        for match in _TOKEN.finditer(body)
        if match.lastgroup != "comment"
    ]
    assignments: list[_Assignment] = []
    returns_at: int | None = None
    stack: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at][1]
        starts = at == 0 or tokens[at - 1][1] in _BEFORE_STATEMENT
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if token == "end":
            if stack:
                stack.pop()
            at += 2 if following in {"if", "case", "loop"} else 1
            continue
        if token == "if" and starts:
            until = _find(tokens, at, "then")
            stack.append("block" if _IS_UPDATE.fullmatch(_text(tokens[at + 1 : until])) else "if")
        elif token in {"elsif", "elseif", "else"} and starts and stack and stack[-1] == "block":
            stack[-1] = "if"
        elif token in {"case", "loop"}:
            stack.append(token)
        elif token == "begin":
            stack.append("begin")
        elif token == "exception" and starts and stack:
            stack[-1] = "handler"
        elif token == "return" and starts and returns_at is None:
            returns_at = len(assignments)
        elif token == "new" and starts and following == "." and at + 3 < len(tokens):
            kind, column = tokens[at + 2]
            if tokens[at + 3][1] in {":=", "="} and kind in {"word", "name"}:
                until = _find(tokens, at, ";")
                name = column if kind == "word" else column[1:-1].replace('""', '"')
                conditional = any(each in _CONDITIONAL for each in stack)
                assignments.append(_Assignment(name, _text(tokens[at + 4 : until]), conditional))
                at = until
                continue
        at += 1
    return assignments, returns_at


def _find(tokens: list[tuple[str | None, str]], start: int, wanted: str) -> int:
    return next((at for at in range(start, len(tokens)) if tokens[at][1] == wanted), len(tokens))


def _text(tokens: list[tuple[str | None, str]]) -> str:
    joined = re.sub(r"\s*([(,.])\s*", r"\1", " ".join(token for _, token in tokens))
    return re.sub(r"\s+\)", ")", joined)
