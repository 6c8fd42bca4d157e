"""A small shop in raw for test_in_place_property.py: its tables as the loader writes them, and all that changes them.

Ids and values are few, so that changes meet: rows move between groups that others enter and leave, and keys come back.
"""

from __future__ import annotations

import json
import random
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests import programs
from tests.integration.by_key_models import Model
from tests.integration.marts import KEYS
from tests.integration.refused_models import PARTITIONED, REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import psycopg

    from tests.integration.checkout import Checkout

# the columns of each table, with SQL for a random value of each; the first is the key
TABLES: dict[str, dict[str, tuple[str, str]]] = {
    "orders": {
        "order_id": ("bigint", ""),
        "customer_id": ("bigint", "nullif((random() * 5)::int, 0)"),
        "status": ("text", "(array['a', 'b', 'c', null])[1 + floor(random() * 4)::int]"),
        "amount": ("numeric(12, 2)", "(array[0, 1.5, 2.25, 7, null])[1 + floor(random() * 5)::int]"),
        "ordered_on": ("date", "'2026-01-30'::date + nullif((random() * 4)::int, 0)"),
    },
    "items": {
        "item_id": ("bigint", ""),
        "order_id": ("bigint", "nullif((random() * 14)::int, 0)"),
        "product_id": ("bigint", "nullif((random() * 4)::int, 0)"),
        "quantity": ("integer", "(random() * 3)::int"),
    },
    "customers": {
        "customer_id": ("bigint", ""),
        "country": ("text", "(array['DE', 'FR', 'Ünited', null])[1 + floor(random() * 4)::int]"),
    },
    "products": {
        "product_id": ("bigint", ""),
        "category": ("text", "(array['x', 'y', null])[1 + floor(random() * 3)::int]"),
    },
}  # fmt: skip
SIZES = {"orders": 12, "items": 30, "customers": 5, "products": 4}
# what happens in raw; the loader does the first two
LOADER = ("load", "mark")
KINDS = (*LOADER, *LOADER, "load", "edit", "edit", "delete", "rename", "old stamp", "truncate", "replace")
_LOGS = ("_tidemark_changes", "_tidemark_tracked")
_STAMP = "_tidemark_loaded_xid"
_HOW_LONG_S = 6


class Shop:
    """The tables, the dbt project on them, and the changes."""

    def __init__(self, checkout: Checkout, seed: int = 0) -> None:
        self.checkout = checkout
        self.draw = random.Random(seed)
        checkout.remove_models()
        (self._models / "sources.yml").write_text(
            f"sources: [{{name: shop, schema: raw, tables: [{', '.join(f'{{name: {name}}}' for name in TABLES)}]}}]"
        )
        for name, columns in TABLES.items():
            (self._models / f"stg_{name}.sql").write_text(
                "{{ config(materialized='in_place_view', schema='staging') }}\n"
                f"with source as (select * from {{{{ source('shop', '{name}') }}}})\n"
                f"select {', '.join(columns)}, {_STAMP} as loaded_xid from source where _sdc_deleted_at is null\n"
            )

    @property
    def _models(self) -> Path:
        return self.checkout.root / "transform" / "models"

    def begin(self, seed: int, models: Sequence[Model]) -> None:
        """Start over with these models, none of which is built, and rows that the seed gives."""
        self.draw = random.Random(seed)
        self.models = models
        for file in self._models.glob("m*.sql"):
            file.unlink()
        for model in models:
            (self._models / f"{model.name}.sql").write_text(model.file)
        with self.checkout.connect("warehouse") as connection:
            connection.execute("drop schema if exists staging, marts cascade")
            connection.execute(
                f"drop table if exists {', '.join(f'raw.{name}' for name in (*TABLES, *_LOGS))}".encode()
            )
        with self.connect() as connection:
            for name, columns in TABLES.items():
                typed = ", ".join(f"{column} {kind}" for column, (kind, _) in columns.items())
                connection.execute(
                    f"create table raw.{name} ({typed}, primary key ({next(iter(columns))}), "
                    f"_sdc_deleted_at timestamptz, {_STAMP} xid8 not null default pg_current_xact_id())"
                )
                self.load(connection, name, range(1, SIZES[name] + 1))

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection[Any]]:
        """Connect as the loader, which owns the tables."""
        with self.checkout.connect("warehouse") as connection:
            connection.execute(f"set role tidemark_loader; select setseed({self.draw.random()})".encode())
            yield connection

    # what happens in raw

    def load(self, connection: psycopg.Connection[Any], table: str, ids: Sequence[int]) -> None:
        """Insert or replace rows as the loader does."""
        key, *others = TABLES[table]
        values = [TABLES[table][column][1] for column in others]
        changed = ", ".join(f"{column} = excluded.{column}" for column in (*others, "_sdc_deleted_at", _STAMP))
        for number in ids:
            connection.execute(
                f"insert into raw.{table} ({', '.join([key, *others])}) values ({', '.join([str(number), *values])}) "
                f"on conflict ({key}) do update set {changed}".encode()
            )

    def some(self, table: str, most: int = 3) -> list[int]:
        return [self.draw.randint(1, SIZES[table] + 2) for _ in range(self.draw.randint(1, most))]

    def change(self, connection: psycopg.Connection[Any], kinds: Sequence[str] = KINDS) -> str:
        """Make one change of some rows of a table; return what it was."""
        kind = self.draw.choice(kinds)
        table = self.draw.choice(list(TABLES))
        key, *others = TABLES[table]
        ids = self.some(table)
        where = f"where {key} = any(array{ids}::bigint[])"
        column = self.draw.choice(others)
        value = TABLES[table][column][1]
        if kind == "load":
            self.load(connection, table, ids)
        elif kind == "mark":
            connection.execute(
                f"update raw.{table} set _sdc_deleted_at = now(), {_STAMP} = pg_current_xact_id() {where}".encode()
            )
        elif kind == "edit":
            # by hand, without a stamp
            connection.execute(f"update raw.{table} set {column} = {value} {where}".encode())
        elif kind == "delete":
            connection.execute(f"delete from raw.{table} {where}".encode())
        elif kind == "rename":
            stamp = self.draw.choice(["", f", {_STAMP} = pg_current_xact_id()"])
            free = f"(select max({key}) + 1 from raw.{table})"
            connection.execute(f"update raw.{table} set {key} = {free}{stamp} where {key} = {ids[0]}".encode())
            connection.execute(
                f"update raw.{table} set {key} = {ids[0]} where {key} = {ids[-1]} and {ids[0]} <> {ids[-1]} "
                f"and not exists (select from raw.{table} where {key} = {ids[0]})".encode()
            )
        elif kind == "old stamp":
            # copied back by hand, with the stamp of before
            connection.execute(f"update raw.{table} set {column} = {value}, {_STAMP} = '3' {where}".encode())
        elif kind == "truncate":
            connection.execute(f"create temporary table kept as table raw.{table}; truncate raw.{table}".encode())
            connection.execute(
                f"insert into raw.{table} select * from kept where {key} % 3 <> 0; drop table kept".encode()
            )
        else:
            # as a stream that replaces a table whole: what the source lacks is deleted
            with connection.transaction():
                connection.execute(f"delete from raw.{table} where {key} % 4 = 0".encode())
                self.load(connection, table, [number for number in range(1, SIZES[table] + 1) if number % 4])
        return f"{kind} {table} {ids}"

    def change_column(self, connection: psycopg.Connection[Any], table: str, column: str) -> None:
        """Give a table's rows other values in one column, and nothing else."""
        connection.execute(f"update raw.{table} set {column} = {TABLES[table][column][1]}".encode())

    def change_rows(self, connection: psycopg.Connection[Any], table: str) -> None:
        """Delete about half of a table's rows; insert those that it lacks."""
        key = next(iter(TABLES[table]))
        present = {number for (number,) in connection.execute(f"select {key} from raw.{table}".encode())}
        gone = [number for number in present if self.draw.random() < 0.5]
        connection.execute(f"delete from raw.{table} where {key} = any(%s)".encode(), [gone])
        self.load(connection, table, [number for number in range(1, SIZES[table] + 1) if number not in present])

    # builds

    def build(self, *arguments: str) -> str:
        return self.checkout.build(*arguments)

    def killed_build(self) -> None:
        """Start a build and kill it at a random moment."""
        environment = {**self.checkout.dbt_environment()}
        with (self.checkout.root / "killed.log").open("wb+") as log, open("/dev/null", "rb") as nothing:  # noqa: PTH123
            run = programs.start(
                [programs.DBT, "run"], stdin=nothing, stdout=log, stderr=log, cwd=self.checkout.root, env=environment
            )
            time.sleep(self.draw.uniform(0.5, _HOW_LONG_S))
            run.kill()
            run.wait(timeout=60)

    def refusals(self, which: Sequence[str]) -> dict[str, str]:
        """Build these models of REFUSED, and return what each build says; empty if it was accepted."""
        self.begin(0, [])
        (self._models / "partitioned.sql").write_text(PARTITIONED)
        files = {f"refused_{number}": what for number, what in enumerate(which)}
        for name, what in files.items():
            refused = REFUSED[what]
            config = {"unique_key": refused.key, "changed_by": refused.changed_by, **(refused.more or {})}
            (self._models / f"{name}.sql").write_text(Model(name, (), (), True, refused.query, config).file)
            if refused.contract:
                columns = [{"name": column, "data_type": kind} for column, kind in refused.contract.items()]
                described = {"name": name, "config": {"contract": {"enforced": True}}, "columns": columns}
                (self._models / f"{name}.yml").write_text(json.dumps({"models": [described]}))
        try:
            said = self.refused()
        finally:
            for file in self._models.glob("refused_*"):
                file.unlink()
            (self._models / "partitioned.sql").unlink()
        assert not self.checkout.rows("warehouse", "select relname from pg_class where relname like 'refused%'"), said
        return dict.fromkeys(which, "") | {files[name]: line for name, line in said.items()}

    def refused(self) -> dict[str, str]:
        """Run the models, and return what those that fail say, by name."""
        printed = self.checkout.dbt("run").stdout
        return {name: line.strip() for name, line in re.findall(r"Error in model (\w+) .*\n(.*)", printed)}

    def keep(self, models: Sequence[Model]) -> None:
        """Take the other models out of the project."""
        for model in self.models:
            if model not in models:
                (self._models / f"{model.name}.sql").unlink()
        self.models = models

    # what must hold

    def differing(self) -> dict[str, list[Any]]:
        """Return rows that a model has and its SELECT has not, or the other way round, with the side that has them."""
        found = {}
        with self.checkout.connect("warehouse") as connection:
            for model in self.models:
                names = ", ".join(
                    name
                    for (name,) in connection.execute(
                        "select quote_ident(attname) from pg_attribute where attrelid = %s::regclass and attnum > 0 "
                        "and not attisdropped order by attnum",
                        [f"marts.{model.name}"],
                    )
                )
                table, truth = (
                    f"select {names} from marts.{model.name}",
                    f"select {names} from ({model.truth}) as truth",
                )
                # as text, in which 1.0 is not 1.00
                table, truth = (f"select t::text as t from ({query}) as t" for query in (table, truth))
                rows = connection.execute(
                    f"select 'table' as side, t from ({table} except all {truth}) as t "
                    f"union all select 'truth', t from ({truth} except all {table}) as t".encode()
                ).fetchall()
                if rows:
                    found[model.name] = rows
        return found

    def evaluated(self, printed: str) -> dict[str, int | None]:
        """Return how many keys a build evaluated of each model; none if it computed all rows."""
        found = {name: int(count) for name, count in KEYS.findall(printed)}
        return {model.name: found.get(model.name) for model in self.models}
