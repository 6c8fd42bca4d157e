"""A source that changes at random, and a person who edits what onboarding wrote: `tidemark onboard` again and again.

No edited file is ever lost, and each round is green or refused by one line. ROUNDS says how many there are, FULL_EVERY
which of them also load, compare, build and test; `make chaos` has a hundred. ONBOARD_SEED repeats one.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml
from psycopg import sql

from tests.chaos.conftest import LONG
from tests.integration.test_onboard_whole import Strangers, strangers
from tidemark.onboard.manifest import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROUNDS = int(os.environ.get("ROUNDS", "100" if LONG else "2"))
# test_onboard_again.py has the short forms
pytestmark = [] if LONG else [pytest.mark.long]
FULL_EVERY = int(os.environ.get("FULL_EVERY", "10"))
SEED = int(os.environ.get("ONBOARD_SEED", "0")) or random.SystemRandom().randrange(10**6)
NAME = "app"
TAP = f"extract/{NAME}.meltano.yml"
SOURCES = f"transform/models/staging/{NAME}/_sources.yml"
_START = """
    create type mood as enum ('good', 'it''s {{ odd }}');
    create domain score as int check (value >= 0);
    create schema other;
    create table people (
        id int primary key, name text not null, email text, updated_at timestamptz not null default now()
    );
    create table orders (
        id bigint primary key, person int not null references people, state text check (state in ('new', 'paid'))
    );
    create table log (at timestamptz default now(), line text);
    insert into people (id, name) select n, 'person ' || n from generate_series(1, 20) n;
    insert into orders select n, 1 + n % 20, 'new' from generate_series(1, 60) n;
    insert into log (line) select 'line ' || n from generate_series(1, 10) n
"""
_TABLES = ("people", "orders", "log", "Order Items", "select", "größe", "x" * 60, "visits", "stg", "_odd", "2nd", "a.b")
_COLUMNS = ("note", "Name", "user", "created_at", "updated_at", "order_date", "amount", "e_mail", "a b", "tags", "mood")
_TYPES = ("int", "bigint", "text", "varchar(20)", "numeric(8,2)", "timestamptz", "timestamp", "date", "boolean", "mood")
_TYPES += ("jsonb", "uuid", "score", "int[]", "tsvector", "bytea", "interval", "double precision")
_COMMENTS = ("plain", 'it\'s "quoted": {{ jinja }} #1', "two\nlines", "- a list", "%s $HOME", "é ✓", "")
# a value that most types take
_VALUES = ("null", "'7'", "now()", "true", "gen_random_uuid()", "'{}'", "'x'", "'good'")


class Source:
    """The stranger's database, whose owner changes it."""

    def __init__(self, connection: psycopg.Connection[Any], chance: random.Random) -> None:
        self.connection = connection
        self.chance = chance
        self.done: Counter[str] = Counter()

    def change(self) -> None:
        """Change something at random. What PostgreSQL refuses is not done, nor what there is nothing for."""
        change = self.chance.choice(self._changes())
        with suppress(psycopg.Error, IndexError):
            change()
            self.done[change.__name__.strip("_")] += 1

    def _changes(self) -> list[Callable[[], None]]:
        return [
            *(self._add_table, self._drop_table, self._rename_table, self._add_column, self._drop_column),
            *(self._rename_column, self._retype_column, self._drop_constraint, self._add_key, self._add_foreign_key),
            *(self._add_check, self._comment, self._not_null, self._insert, self._insert, self._add_view),
            *(self._keep_by_trigger, self._update),
        ]

    def _do(self, statement: str, **parts: str | tuple[str, ...]) -> None:
        for name, part in parts.items():
            identifier = sql.Identifier(*([part] if isinstance(part, str) else part))
            statement = statement.replace(f"{{{name}}}", identifier.as_string(self.connection))
        self.connection.execute(statement.encode())

    def _tables(self) -> list[tuple[str, str]]:
        found = self.connection.execute(
            "select schemaname, tablename from pg_tables where schemaname in ('public', 'other') order by 1, 2"
        )
        return [(schema, name) for schema, name in found]

    def _table(self) -> tuple[str, str]:
        return self.chance.choice(self._tables())

    def _column(self, table: tuple[str, str]) -> str:
        found = self.connection.execute(
            "select column_name from information_schema.columns where (table_schema, table_name) = (%s, %s) order by 1",
            table,
        )
        return self.chance.choice([name for (name,) in found])

    def _add_table(self) -> None:
        path = (self.chance.choice(("public", "public", "other")), self.chance.choice(_TABLES))
        key = self.chance.choice(("id int primary key", "id bigint generated always as identity primary key", "id int"))
        self._do(
            f"create table {{table}} ({key}, name text, updated_at timestamptz not null default now())", table=path
        )
        self._do("insert into {table} (name) select 'row ' || n from generate_series(1, 5) n", table=path)

    def _drop_table(self) -> None:
        if len(self._tables()) > 3:
            self._do("drop table {table} cascade", table=self._table())

    def _rename_table(self) -> None:
        self._do("alter table {table} rename to {new}", table=self._table(), new=self.chance.choice(_TABLES))

    def _add_column(self) -> None:
        type_, name = self.chance.choice(_TYPES), self.chance.choice(_COLUMNS)
        self._do(f"alter table {{table}} add column {{column}} {type_}", table=self._table(), column=name)

    def _drop_column(self) -> None:
        table = self._table()
        self._do("alter table {table} drop column {column} cascade", table=table, column=self._column(table))

    def _rename_column(self) -> None:
        table = self._table()
        new = self.chance.choice(_COLUMNS)
        self._do("alter table {table} rename {column} to {new}", table=table, column=self._column(table), new=new)

    def _retype_column(self) -> None:
        table, type_ = self._table(), self.chance.choice(_TYPES)
        statement = f"alter table {{table}} alter {{column}} type {type_} using {{column}}::text::{type_}"
        self._do(statement, table=table, column=self._column(table))

    def _drop_constraint(self) -> None:
        found = self.connection.execute(
            "select n.nspname, c.relname, k.conname from pg_constraint k join pg_class c on c.oid = k.conrelid "
            "join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('public', 'other') order by 1, 2, 3"
        ).fetchall()
        schema, table, name = self.chance.choice(found)
        self._do("alter table {table} drop constraint {name} cascade", table=(schema, table), name=name)

    def _add_key(self) -> None:
        table = self._table()
        self._do("alter table {table} add primary key ({column})", table=table, column=self._column(table))

    def _add_foreign_key(self) -> None:
        table, other = self._table(), self._table()
        self._do(
            "alter table {table} add foreign key ({column}) references {other}",
            table=table,
            column=self._column(table),
            other=other,
        )

    def _add_check(self) -> None:
        table = self._table()
        check = "alter table {table} add check ({column}::text in ('new', 'paid', 'it''s {{ odd }}')) not valid"
        self._do(check, table=table, column=self._column(table))

    def _comment(self) -> None:
        table = self._table()
        comment = sql.Literal(self.chance.choice(_COMMENTS)).as_string(self.connection)
        if self.chance.random() < 0.5:
            self._do(f"comment on table {{table}} is {comment}", table=table)
        else:
            column = (*table, self._column(table))
            self._do(f"comment on column {{column}} is {comment}", column=column)

    def _not_null(self) -> None:
        table, what = self._table(), self.chance.choice(("set", "drop"))
        self._do(f"alter table {{table}} alter {{column}} {what} not null", table=table, column=self._column(table))

    def _insert(self) -> None:
        table = self._table()
        column, value = self._column(table), self.chance.choice(_VALUES)
        self._do(f"insert into {{table}} ({{column}}) values ({value})", table=table, column=column)

    def _update(self) -> None:
        table = self._table()
        column, value = self._column(table), self.chance.choice(_VALUES)
        self._do(f"update {{table}} set {{column}} = {value}", table=table, column=column)

    def _add_view(self) -> None:
        name = f"view_{self.chance.randrange(10**6)}"
        self._do("create view {view} as select * from {table}", view=name, table=self._table())

    def _keep_by_trigger(self) -> None:
        self.connection.execute(
            "create or replace function touch() returns trigger language plpgsql as "
            "'begin new.updated_at := now(); return new; end'"
        )
        self._do(
            "create trigger touch before update on {table} for each row execute function touch()", table=self._table()
        )


class Person:
    """A person who edits what onboarding wrote. `left` has each edited file as the person left it, None if deleted."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self.root = root
        self.chance = chance
        self.left: dict[Path, str | None] = {}

    def manifest(self) -> dict[str, Any]:
        """Return what onboarding keeps about the source."""
        return json.loads((self.root / f"extract/{NAME}.onboarded.json").read_text())

    def edit(self) -> None:
        """Edit one of the files."""
        files = [self.root / name for name in sorted(self.manifest()["files"])]
        file = self.chance.choice([each for each in files if each.exists()])
        text = file.read_text()
        if file.suffix == ".sql" and self.chance.random() < 0.15:
            file.unlink()
            self.left[file] = None
            return
        if file == self.root / TAP and self.chance.random() < 0.5:
            # a stream that the person does not want
            text = re.sub(r"\n        - [^!\n]+\.\*(?=\n)", "", text, count=1)
        mark = "--" if file.suffix == ".sql" else "#"
        self.left[file] = f"{text}{mark} edited {self.chance.randrange(10**6)}\n"
        file.write_text(self.left[file] or "")

    def lost(self) -> list[str]:
        """Return the edited files that are not as the person left them."""
        there = {file: file.read_text() if file.exists() else None for file in self.left}
        return [str(file) for file, text in self.left.items() if there[file] != text]

    def give_up(self) -> None:
        """Leave all files to onboarding again, as if it had written them as they are."""
        manifest = self.manifest()
        for file, text in self.left.items():
            if text is None:
                manifest["files"].pop(file.relative_to(self.root).as_posix(), None)
            elif known := manifest["files"].get(file.relative_to(self.root).as_posix()):
                known["sha256"] = sha256(text)
        (self.root / f"extract/{NAME}.onboarded.json").write_text(json.dumps(manifest))
        self.left.clear()


class Rounds:
    """The rounds, with what was refused."""

    def __init__(self, all_: Strangers, source: Source, person: Person) -> None:
        self.all_ = all_
        self.source = source
        self.person = person
        self.refused: list[str] = []

    def onboard(self, *options: str) -> bool:
        """Onboard; return whether it was green. A refusal is one line with a name, never an unexpected error."""
        done = self.all_.checkout.run("tidemark", "onboard", NAME, *options)
        assert self.person.lost() == [], done.stdout + done.stderr
        if done.returncode == 0:
            return True
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stdout + done.stderr
        assert lines[0].startswith("error: "), lines
        assert "this is unexpected" not in lines[0], done.stdout + done.stderr
        edited = ", ".join(sorted(each.name for each in self.person.left)) or "nothing"
        print(f"refused, with {edited} edited: {lines[0]}")  # noqa: T201 - for pytest -s
        self.refused.append(lines[0])
        return False

    def is_whole(self) -> None:
        """A second onboarding changes nothing, and what is on board has a stream and is described."""
        done = self.all_.checkout.run("tidemark", "onboard", NAME, "--check")
        assert done.returncode == 0, done.stdout + done.stderr
        root = self.all_.checkout.root
        taps = yaml.safe_load((root / TAP).read_text())["plugins"]["extractors"]
        selected = {tap["name"]: [each.rpartition(".")[0] for each in tap["select"] if each[0] != "!"] for tap in taps}
        described = {
            (source["name"], table.get("identifier", table["name"]))
            for source in yaml.safe_load((root / SOURCES).read_text())["sources"]
            for table in source["tables"]
        }
        for stream, table in self.person.manifest()["tables"].items():
            if not table["gone"]:
                tap = f"tap-{table['pair'] or NAME}"
                assert any(fnmatchcase(stream, pattern) for pattern in selected[tap]), (stream, selected)
                assert (table["raw_schema"], table["raw_name"]) in described, (stream, described)

    def start_again(self) -> None:
        """Do what always helps after a refused load or build: give the edits up, and read everything again."""
        self.person.give_up()
        with self.all_.checkout.connect("warehouse") as connection:
            schemas = connection.execute("select nspname from pg_namespace where nspname like 'raw_app%'").fetchall()
            for (schema,) in schemas:
                connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))
        listed = self.all_.checkout.run("tidemark", "meltano", "state", "list").stdout.split()
        for state in (each for each in listed if "tap-app" in each):
            self.all_.checkout.tidemark("meltano", "state", "clear", "--force", state)


@contextmanager
def rounds(seed: int, tmp_path: Path) -> Iterator[Rounds]:
    chance = random.Random(seed)
    (tmp_path / "start.sql").write_text(_START)
    with strangers() as all_:
        all_.make(NAME, tmp_path / "start.sql")
        with all_.connect(NAME) as connection:
            found = Rounds(all_, Source(connection, chance), Person(all_.checkout.root, chance))
            assert found.onboard(*all_.address(NAME), "--yes"), found.refused
            yield found


@pytest.mark.timeout(10_800)
def test_an_edited_file_is_never_lost_and_each_round_is_green_or_refused_by_one_line(tmp_path):
    print(f"ONBOARD_SEED={SEED} ROUNDS={ROUNDS}")  # noqa: T201 - to repeat a failure
    full = green = 0
    with rounds(SEED, tmp_path) as found:
        chance = found.source.chance
        for number in range(1, ROUNDS + 1):
            for _ in range(chance.randint(1, 5)):
                found.source.change()
            if chance.random() < 0.4:
                found.person.edit()
            options = ["--remove-gone"] if chance.random() < 0.2 else []
            if number % FULL_EVERY:
                green += (is_green := found.onboard("--yes", "--no-run", *options))
                if is_green:
                    found.is_whole()
                continue
            full += 1
            # a model of a table that is gone may read what was never loaded
            if not found.onboard("--yes", "--remove-gone"):
                found.start_again()
                assert found.onboard("--yes", "--remove-gone"), found.refused
            green += 1
            found.is_whole()
        print(  # noqa: T201
            f"{green} of {ROUNDS} rounds green, {full} with a load, {len(found.refused)} refused by one line; "
            f"changes: {dict(found.source.done)}"
        )
        assert green + len(found.refused) >= ROUNDS
