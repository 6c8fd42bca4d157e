"""Recognises check constraints that allow a column only listed values. Pure: it parses pg_get_constraintdef()."""

from __future__ import annotations

import re

from tidemark.onboard.source_tables import ValueList

_TOKEN = re.compile(
    r"""(?P<cast>::\s*(?:"(?:[^"]|"")+"|\w+)(?:\.(?:"(?:[^"]|"")+"|\w+))?
            (?:\ varying|\ precision|\ with(?:out)?\ time\ zone)?(?:\(\d+(?:,\s*\d+)?\))?(?:\[\])*)
    | (?P<text>[eE]?'(?:[^']|'')*')
    | (?P<name>"(?:[^"]|"")+")
    | (?P<number>\d+(?:\.\d+)?)
    | (?P<word>[^\W\d]\w*)
    | (?P<symbol>\S)""",
    re.VERBOSE,
)


def value_list(definition: str, column: str | None = None) -> ValueList | None:
    """Return the values that a check constraint allows a column; None if it says anything else.

    Args:
        definition: as pg_get_constraintdef() writes it.
        column: for a constraint of a domain, the column of that domain.
    """
    tokens = [
        (str(match.lastgroup), match[0])
        for match in _TOKEN.finditer(definition)
        # parentheses and casts change nothing here: a function's name before a parenthesis still stands out
        if match.lastgroup != "cast" and match[0] not in "()"
    ]
    if not tokens or tokens.pop(0) != ("word", "CHECK"):
        return None
    tokens = _without_null_branch(tokens)
    if len(tokens) < 3 or tokens[0][0] not in {"name", "word"}:  # noqa: PLR2004 - column, operator, value
        return None
    first = tokens[0]
    rest = tokens[1:]
    if rest[:3] == [("symbol", "="), ("word", "ANY"), ("word", "ARRAY")] and rest[3:4] == [("symbol", "[")]:
        if rest[-1] != ("symbol", "]"):
            return None
        found = _separated(rest[4:-1])
    else:
        found = _alternatives(first, tokens)
    if not found:
        return None
    name = column if column is not None and first == ("word", "VALUE") else _name(first)
    return ValueList(name, tuple(dict.fromkeys(found)))


def _without_null_branch(tokens: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Drop `x IS NULL OR` or `OR x IS NULL` about the same column: a check lets null pass anyway."""
    null = [("word", "IS"), ("word", "NULL")]
    if tokens[1:4] == [*null, ("word", "OR")] and tokens[4:5] == tokens[:1]:
        return tokens[4:]
    if len(tokens) > 4 and tokens[-2:] == null and tokens[-4:-2] == [("word", "OR"), tokens[0]]:  # noqa: PLR2004
        return tokens[:-4]
    return tokens


def _separated(tokens: list[tuple[str, str]]) -> list[str] | None:
    """Return the values of `'a', 'b'`."""
    values, signs = [], [tokens[at] for at in range(1, len(tokens), 2)]
    if any(sign != ("symbol", ",") for sign in signs):
        return None
    for token in tokens[::2]:
        value = _value(token)
        if value is None:
            return None
        values.append(value)
    return values


def _alternatives(first: tuple[str, str], tokens: list[tuple[str, str]]) -> list[str] | None:
    """Return the values of `x = 'a' OR x = 'b'`."""
    values = []
    for at in range(0, len(tokens), 4):
        part = tokens[at : at + 4]
        if len(part) < 3 or part[0] != first or part[1] != ("symbol", "="):  # noqa: PLR2004 - column, =, value
            return None
        if part[3:] not in ([], [("word", "OR")]) or (value := _value(part[2])) is None:
            return None
        values.append(value)
    return values


def _value(token: tuple[str, str]) -> str | None:
    kind, text = token
    if kind == "number":
        return text
    if kind != "text":
        return None
    escaped = text[0] in "eE"
    plain = text[2 if escaped else 1 : -1].replace("''", "'")
    return plain.replace("\\\\", "\\") if escaped else plain


def _name(token: tuple[str, str]) -> str:
    kind, text = token
    return text[1:-1].replace('""', '"') if kind == "name" else text
