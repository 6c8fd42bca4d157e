"""What a check found, and the SQL that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, LiteralString

from psycopg import sql


class Level(StrEnum):
    """How much a finding matters: only an error stands in a run's way."""

    ok = "ok"
    note = "note"
    warning = "warning"
    error = "error"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        stream: None for what concerns the side as a whole.
        mend: statements to run on that side, without their semicolon.
    """

    side: Literal["source", "warehouse", "both"]
    level: Level
    what: str
    mend: tuple[str, ...] = ()
    stream: str | None = None

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "side": self.side,
            "stream": self.stream,
            "level": self.level.value,
            "what": self.what,
            "mend": [f"{statement};" for statement in self.mend],
        }


def statement(template: LiteralString, **parts: str | tuple[str, ...] | list[str]) -> str:
    """Return a statement for people to run: `template` with each {name} replaced by a quoted identifier.

    Args:
        parts: a tuple is a name qualified by its schema, a list is several names.
    """
    identifiers = {
        name: sql.SQL(", ").join(map(sql.Identifier, part))
        if isinstance(part, list)
        else sql.Identifier(*([part] if isinstance(part, str) else part))
        for name, part in parts.items()
    }
    return sql.SQL(template).format(**identifiers).as_string(None)
