"""Finds the assignments to columns of NEW in a plpgsql function. Pure, and only as deep as triggers.py needs it."""

from __future__ import annotations

import re
from typing import NamedTuple

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
_ENDED = frozenset({"if", "case", "loop"})
# inside an UPDATE trigger these are true
_IS_UPDATE = re.compile(
    r"\(* ?tg_op ?(?:= ?'update'|in ?\( ?(?:'insert' ?, ?)?'update'(?: ?, ?'insert')? ?\)"
    r"|= ?'insert' or tg_op ?= ?'update'|= ?'update' or tg_op ?= ?'insert') ?\)*",
    re.IGNORECASE,
)


class Assignment(NamedTuple):
    """`NEW.column := expression`; conditional if it is inside an IF, CASE, LOOP or exception handler."""

    column: str
    expression: str
    is_conditional: bool


class Code(NamedTuple):
    """What a trigger's function does.

    Attributes:
        assignments: to columns of NEW, in their order.
        returns_before: the number of assignments before its first RETURN; None without one.
    """

    assignments: list[Assignment]
    returns_before: int | None


def read(body: str) -> Code:
    """Read a function's source. What it can't follow counts as conditional."""
    return _Reader(body).read()


class _Reader:
    def __init__(self, body: str) -> None:
        self._kinds: list[str] = []
        self._texts: list[str] = []
        for match in _TOKEN.finditer(body):
            if match.lastgroup != "comment":
                self._kinds.append(str(match.lastgroup))
                self._texts.append(match[0].lower() if match.lastgroup == "word" else match[0])
        self._blocks: list[str] = []
        self._assignments: list[Assignment] = []
        self._returns_before: int | None = None

    def read(self) -> Code:
        at = 0
        while at < len(self._texts):
            at = self._step(at)
        return Code(self._assignments, self._returns_before)

    def _step(self, at: int) -> int:
        """Read a token, and return where the next one is."""
        word = self._texts[at]
        if word == "end":
            if self._blocks:
                self._blocks.pop()
            return at + 2 if self._at(at + 1) in _ENDED else at + 1
        if word in {"case", "loop", "begin"}:
            self._blocks.append(word)
        elif at == 0 or self._texts[at - 1] in _BEFORE_STATEMENT:
            return self._statement(at, word)
        return at + 1

    def _statement(self, at: int, word: str) -> int:
        if word == "if":
            condition = self._text(at + 1, self._find(at, "then"))
            self._blocks.append("always" if _IS_UPDATE.fullmatch(condition) else "if")
        elif word in {"elsif", "elseif", "else"} and self._blocks[-1:] == ["always"]:
            self._blocks[-1] = "if"
        elif word == "exception" and self._blocks:
            self._blocks[-1] = "handler"
        elif word == "return" and self._returns_before is None:
            self._returns_before = len(self._assignments)
        elif word == "new" and self._at(at + 1) == "." and self._at(at + 3) in {":=", "="}:
            return self._assignment(at)
        return at + 1

    def _assignment(self, at: int) -> int:
        name, until = self._texts[at + 2], self._find(at, ";")
        if self._kinds[at + 2] == "name":
            name = name[1:-1].replace('""', '"')
        conditional = any(block in _CONDITIONAL for block in self._blocks)
        self._assignments.append(Assignment(name, self._text(at + 4, until), conditional))
        return until

    def _at(self, at: int) -> str:
        return self._texts[at] if at < len(self._texts) else ""

    def _find(self, start: int, wanted: str) -> int:
        return next((at for at in range(start, len(self._texts)) if self._texts[at] == wanted), len(self._texts))

    def _text(self, start: int, end: int) -> str:
        joined = re.sub(r"\s*([(,.])\s*", r"\1", " ".join(self._texts[start:end]))
        return re.sub(r"\s+\)", ")", joined)
