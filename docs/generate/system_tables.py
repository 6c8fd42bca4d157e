"""The `_tidemark_*` tables, from the statements that make them: in Python declarations and in dbt's macros.

What a table is, who writes it and who reads it, and what each column holds, are SQL comments in those statements.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from repository import ROOT, row

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = """\
# Tidemark's tables

Tidemark keeps these tables in the warehouse and makes each when it first needs it. The comment on a table holds its
version: a newer release brings an older table up to date, and an older release refuses to write a newer one. Members of
the role `tidemark_monitor` may read them. Change nothing in them: runs rely on what they say.
"""
_IN_RAW = "Beside the raw tables"
_IN_MARTS = "Beside the models"
_CREATE = re.compile(r"create table (?:if not exists )?(.+?) \($", re.IGNORECASE)
_ALTER = re.compile(r"alter table (\S+)$", re.IGNORECASE)
_COLUMN = re.compile(
    r"(?:add column (?:if not exists )?)?(?P<name>[a-z_]+) (?P<type>double precision|[a-z0-9_]+(?:\([\d, ]+\)|\[\])?)"
    r"(?= (?:not null|default|primary|generated)|[,;]| --|$).*?(?:-- (?P<meaning>.+))?$",
    re.IGNORECASE,
)


@dataclass
class Table:
    """One of the tables, as far as its statements were read."""

    name: str
    about: list[str]
    columns: list[tuple[str, str, str]] = field(default_factory=list)


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    of_dbt = list(_of_dbt())
    in_raw = [*_of_python(), *(table for table in of_dbt if table.name in _tracking())]
    for title, tables in ((_IN_RAW, in_raw), (_IN_MARTS, of_dbt)):
        parts.append(f"## {title}\n")
        for table in sorted(tables, key=lambda table: table.name):
            parts += [f"### `{table.name}`\n", *_told(table.about), ""]
            parts += ["| column | type | what it holds |\n|---|---|---|"]
            parts += [row(f"`{name}`", f"`{type_}`", meaning) for name, type_, meaning in table.columns] + [""]
    return "\n".join(parts).rstrip() + "\n"


def _told(about: list[str]) -> Iterator[str]:
    yield about[0]
    for line in about[1:]:
        label, _, rest = line.partition(": ")
        yield f"\n**{label}:** {rest}"


def _of_python() -> Iterator[Table]:
    """Yield the tables of declarations: a name, and statements in which `{}` is the table."""
    for path in sorted(ROOT.glob("plugins/*/src/**/*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) == 2):  # noqa: PLR2004
            name, steps = call.args
            if isinstance(steps, ast.Tuple) and "CREATE TABLE {}" in ast.unparse(steps):
                yield from _read("\n".join(ast.literal_eval(steps)), ast.literal_eval(name))


def _of_dbt() -> Iterator[Table]:
    for path in sorted(ROOT.glob("transform/packages/*/macros/*.sql")):
        if path.name == "logging_function.sql":
            # the same tables as run_start.sql's
            continue
        text = path.read_text(encoding="utf-8")
        own = re.search(r"set table = .*?\.(_tidemark_\w+)'", text)
        text = text.replace("{{ table }}", own[1] if own else "").replace("{{ quoted }}.", "")
        if "create table" in text and "_tidemark_" in text:
            yield from _read(text)


def _tracking() -> set[str]:
    """Return the names of the tables that dbt also keeps beside raw tables, where triggers log changes."""
    text = (ROOT / "transform/packages/in_place/macros/logging_function.sql").read_text(encoding="utf-8")
    return set(re.findall(r"create table %1\$I\.(\w+)", text))


def _read(statements: str, name: str = "") -> Iterator[Table]:
    """Yield the tables that `statements` make. `name` is that of the only one.

    Raises:
        ValueError: a column, or a table, has no comment.
    """
    comments: list[str] = []
    tables: dict[str, Table] = {}
    table: Table | None = None
    for line in map(str.strip, statements.splitlines()):
        if line.startswith("-- "):
            comments.append(line.removeprefix("-- "))
            continue
        create, alter = _CREATE.match(line), _ALTER.match(line)
        if create and "_tidemark_" in (name or create[1]):
            table = tables[name or create[1]] = Table(name or create[1], comments)
            if len(comments) != 3:  # noqa: PLR2004 - what it is, who writes it, who reads it
                msg = f"{table.name} lacks the comments that say what it is, who writes it and who reads it"
                raise ValueError(msg)
        elif re.search(r"add column", line, re.IGNORECASE) and not table:
            msg = f"Put each column that an ALTER TABLE adds on a line of its own, with a comment: {line}"
            raise ValueError(msg)
        elif alter:
            table = tables.get(name or alter[1])
        elif (
            table and (column := _COLUMN.match(line)) and not line.lower().startswith(("primary", "check", "generated"))
        ):
            if not column["meaning"]:
                msg = f"{table.name}.{column['name']} lacks a comment that says what it holds"
                raise ValueError(msg)
            table.columns.append((column["name"], column["type"], column["meaning"]))
        if line.endswith(";") or line.startswith(")"):
            table = None
        comments = []
    yield from tables.values()
