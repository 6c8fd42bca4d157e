"""A database of its own for each test module's run, and what feeds a target."""

from __future__ import annotations

import io
import json
import os
import uuid
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from target_postgres.target import TargetPostgres as StockTarget

from singer_postgres.target.target import TargetPostgres

if TYPE_CHECKING:
    from collections.abc import Iterable

    from singer_sdk import Target

# made by tests/singer/test_sdk_suites.py: the settings of a database that the tests may fill
CONNECTION: dict[str, Any] = json.loads(os.environ["SINGER_POSTGRES_TEST_CONNECTION"])
TARGETS: dict[str, type[Target]] = {"stock": StockTarget, "ours": TargetPostgres}


@dataclass
class Outcome:
    """What a target left behind: the error that ended it, the states it told, and its tables."""

    error: str | None = None
    states: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Fed:
    """A target of one kind, writing to a schema of its own."""

    kind: str
    schema: str
    settings: dict[str, Any] = field(default_factory=dict)

    def target(self, **settings: Any) -> Target:
        return TARGETS[self.kind](
            config={**CONNECTION, "default_target_schema": self.schema, **self.settings, **settings}
        )

    def feed(self, lines: Iterable[str | dict[str, Any]], **settings: Any) -> Outcome:
        """Have a new target process messages to their end; an error ends it as it would the program."""
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        outcome, told = Outcome(), io.StringIO()
        with redirect_stdout(told):
            target = self.target(**settings)
            try:
                target.listen(io.StringIO(text))
            except Exception as error:  # noqa: BLE001 - what it is, is what the tests compare
                outcome.error = _kind(error)
                self.message = str(error)
            finally:
                # the stock target leaves its connections to the garbage collector
                target.target_connector._engine.dispose()
        outcome.states = [json.loads(line) for line in told.getvalue().splitlines()]
        with psycopg.connect(**connection_parameters()) as connection:
            for table in self._tables(connection):
                outcome.columns[table] = self._columns(connection, table)
                outcome.rows[table] = self._rows(connection, table, outcome.columns[table])
        return outcome

    message: str = ""

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Return what a query gives, names being looked up in the target's schema."""
        with psycopg.connect(**connection_parameters(), autocommit=True) as connection:
            connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(self.schema)))
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _tables(self, connection: psycopg.Connection[Any]) -> list[str]:
        query = "select relname from pg_class where relnamespace = to_regnamespace(%s) and relkind = 'r' order by 1"
        found = connection.execute(query, [sql.Identifier(self.schema).as_string()]).fetchall()
        return [name for (name,) in found if not name.startswith("_tidemark")]

    def _columns(self, connection: psycopg.Connection[Any], table: str) -> dict[str, str]:
        """Return the columns with their types, in any order, those that say how a row was loaded left out."""
        query = """
            select attname, format_type(atttypid, atttypmod) || case when attnotnull then ' not null' else '' end
            from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attname
        """
        found = connection.execute(query, [sql.Identifier(self.schema, table).as_string()]).fetchall()
        return {name: type_ for name, type_ in found if not name.startswith(("_sdc_", "_tidemark_"))}

    def _rows(self, connection: psycopg.Connection[Any], table: str, columns: Iterable[str]) -> list[str]:
        fields = sql.SQL(", ").join(map(sql.Identifier, columns))
        query = sql.SQL("select row({})::text from {} order by 1").format(fields, sql.Identifier(self.schema, table))
        return [row for (row,) in connection.execute(query)]


def _kind(error: Exception) -> str:
    """Return the name of an error's class: PEP 249's or the SDK's where it is a subclass, as drivers and we have."""
    names = [base.__name__ for base in type(error).__mro__]
    common = {"DataError", "IntegrityError", "ProgrammingError", "InvalidInputLine"}
    return next((name for name in names if name in common), names[0])


def connection_parameters() -> dict[str, Any]:
    return {("dbname" if name == "database" else name): value for name, value in CONNECTION.items()}


@pytest.fixture
def targets() -> dict[str, Fed]:
    """The stock target and ours, each with an empty schema."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    return {kind: Fed(kind, f"{name}_{kind}") for kind in TARGETS}


@pytest.fixture
def ours(targets: dict[str, Fed]) -> Fed:
    return targets["ours"]
