"""A finding of the check, with the SQL that fixes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, LiteralString

from psycopg import sql


class Level(StrEnum):
    """The weight of a finding. Only an error would stop a run or spoil its result."""

    ok = "ok"
    note = "note"
    warning = "warning"
    error = "error"


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        stream: the stream; None if the finding concerns the whole database.
        source: the name of the source that the finding concerns; None if it concerns all.
        fix: statements that fix it, to run in that database, without semicolons.
    """

    side: Literal["source", "warehouse", "both"]
    level: Level
    what: str
    fix: tuple[str, ...] = ()
    stream: str | None = None
    source: str | None = None

    def as_dict(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {
            "side": self.side,
            "source": self.source,
            "stream": self.stream,
            "level": self.level.value,
            "what": self.what,
            "fix": [f"{statement};" for statement in self.fix],
        }


def statement(template: LiteralString, **parts: str | tuple[str, ...] | list[str]) -> str:
    """Return a statement for a person to run: `template`, with each {name} replaced by a quoted identifier.

    Args:
        parts: a tuple is a name with its schema, a list is several names.
    """
    identifiers = {
        name: sql.SQL(", ").join(map(sql.Identifier, part))
        if isinstance(part, list)
        else sql.Identifier(*([part] if isinstance(part, str) else part))
        for name, part in parts.items()
    }
    return sql.SQL(template).format(**identifiers).as_string(None)
