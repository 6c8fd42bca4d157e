"""A table with a column of every type, in the source and in the warehouse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from tests.singer.kinds import BINARY, OTHERS, XML

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.singer.conftest import Pipe
    from tests.singer.values import Kind

ROWS = 90
FIXED = " ".join(
    f"-c {setting}"
    for setting in (
        *("TimeZone=UTC", "DateStyle=ISO,YMD", "IntervalStyle=postgres", "extra_float_digits=1", "bytea_output=hex"),
        *("lc_monetary=C", "search_path=", "quote_all_identifiers=off", "array_nulls=on", "xmloption=content"),
        *("client_encoding=UTF8", "standard_conforming_strings=on", "statement_timeout=0"),
    )
)
# settings of a database or a role that change how some type is written or read
ODD_SETTINGS = {
    "TimeZone": ("Asia/Kathmandu", "America/St_Johns"),
    "DateStyle": ("German, DMY", "SQL, DMY"),
    "IntervalStyle": ("sql_standard", "iso_8601"),
    "extra_float_digits": ("0", "-15"),
    "bytea_output": ("escape", "escape"),
    "lc_monetary": ("C.utf8", "POSIX"),
    "search_path": ('"no such schema", public', "pg_temp, public"),
    "xmloption": ("document", "document"),
    "array_nulls": ("off", "off"),
    "quote_all_identifiers": ("on", "on"),
    "standard_conforming_strings": ("off", "off"),
}


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    values: Sequence[str]
    lands: str | None

    def value(self, row: int) -> str | None:
        # each column starts at another value, and has one null per round
        place = row % (len(self.values) + 1)
        return None if place == len(self.values) else self.values[place]


def columns(kinds: Iterable[Kind]) -> list[Column]:
    made = []
    for kind in kinds:
        made.append(Column(kind.name, kind.type, kind.values, kind.lands))
        if kind.array != "":
            made.append(Column(f"{kind.name}_array", f"{kind.type}[]", kind.arrays(), kind.array))
    return made


@dataclass
class Sample:
    """A table of the source with one column for each type."""

    pipe: Pipe
    table: str
    columns: list[Column]
    key: bool = True

    def __post_init__(self) -> None:
        parts = ["id int" + " primary key" * self.key, "updated_at timestamptz default now()"]
        parts += [f"{column.name} {column.type}" for column in self.columns]
        with self._source() as connection:
            connection.execute(f"create table {self.table} ({', '.join(parts)})")
        self.put(range(ROWS))

    def put(self, ids: Iterable[int], shift: int = 0) -> None:
        """Write rows and replace existing ones with these ids; another `shift` gives other values."""
        names = ", ".join(["id", *(column.name for column in self.columns)])
        with self._source() as connection, connection.transaction():
            connection.execute(f"delete from {self.table} where id = any(%s)", [list(ids)])
            with connection.cursor().copy(f"copy {self.table} ({names}) from stdin") as copy:
                for row in ids:
                    copy.write_row([row, *(column.value(row + shift) for column in self.columns)])

    def _source(self) -> psycopg.Connection[Any]:
        return self.pipe.source(options=FIXED.replace("search_path=", "search_path=public"))

    def check(self) -> None:
        """Check that the warehouse equals the source, in columns of the promised types."""
        names = ["id", "updated_at", *(column.name for column in self.columns)]
        with self.pipe.source(options=FIXED) as source, self.pipe.warehouse(options=FIXED) as warehouse:
            declared, landed = types(source, "public", self.table), types(warehouse, "raw", self.table)
            expected = {column.name: column.lands or declared[column.name] for column in self.columns}
            assert {name: landed.get(name) for name in expected} == expected
            there, here = cells(source, "public", self.table, names), cells(warehouse, "raw", self.table, names)
        assert len(there) == len(here) == ROWS
        different = [
            (name, landed[name], ours, theirs)
            for theirs_row, ours_row in zip(there, here, strict=True)
            for name, theirs, ours in zip(names, theirs_row, ours_row, strict=True)
            if theirs != ours
        ]
        assert not different

    def written_by(self) -> dict[int, list[str]]:
        """Return the transactions that wrote each row in the warehouse."""
        rows = self.pipe.rows(f"select id, _tidemark_loaded_xid::text from raw.{self.table}")
        return {id_: sorted(xid for other, xid in rows if other == id_) for id_, _ in rows}


def types(connection: psycopg.Connection[Any], schema: str, table: str) -> dict[str, str]:
    rows = connection.execute(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute "
        "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
        [sql.Identifier(schema, table).as_string()],
    )
    return dict(rows.fetchall())


def cells(connection: psycopg.Connection[Any], schema: str, table: str, names: Sequence[str]) -> list[list[bytes]]:
    query = sql.SQL("copy (select {} from {} order by id) to stdout").format(
        sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier(schema, table)
    )
    with connection.cursor().copy(query) as copy:
        return [line.split(b"\t") for line in b"".join(map(bytes, copy)).split(b"\n")[:-1]]


def set_oddly(pipe: Pipe) -> None:
    """Set defaults of both databases, and of the role in them, that change how values are written and read."""
    for number, side in enumerate((pipe.source, pipe.warehouse)):
        with side() as connection:
            name, role = sql.Identifier(connection.info.dbname), sql.Identifier(connection.info.user)
            for turn, (setting, values) in enumerate(ODD_SETTINGS.items()):
                whose = [sql.SQL("DATABASE {}").format(name), sql.SQL("ROLE {} IN DATABASE {}").format(role, name)]
                # a list of literals, as for search_path
                value = sql.SQL(", ").join(sql.Literal(part.strip(' "')) for part in values[number].split(","))
                connection.execute(
                    sql.SQL("ALTER {} SET {} = {}").format(whose[turn % 2], sql.Identifier(setting), value)
                )


def version(connection: psycopg.Connection[Any]) -> int:
    return connection.info.server_version // 10_000


def reads_xml(connection: psycopg.Connection[Any]) -> bool:
    try:
        connection.execute("select '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        return False
    return True


def both(pipe: Pipe, ask: Callable[[psycopg.Connection[Any]], Any]) -> tuple[Any, Any]:
    """Return the answers of the source and the warehouse."""
    with pipe.source() as source, pipe.warehouse() as warehouse:
        return ask(source), ask(warehouse)


def kinds_of(pipe: Pipe) -> list[Kind]:
    """Return the kinds whose values exist on both ends of a pipe."""
    oldest = min(both(pipe, version))
    xml = [XML] if all(both(pipe, reads_xml)) else []
    return [kind for kind in (*BINARY, *OTHERS, *xml) if kind.since <= oldest]
