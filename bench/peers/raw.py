"""Raw COPY, the lower bound: binary, one pipe per table, into tables with the same columns and keys.

Of changed rows, the bound is an UPDATE. This is told which rows change and keeps no state, so it writes rows again that
did not change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql
from tests.servers import INSTALLATIONS

from bench.peers.base import Peer

if TYPE_CHECKING:
    from bench.measure import Measured


class Raw(Peer):
    """psql, piped into psql."""

    name = "raw COPY"
    settings = (
        "`psql -c 'COPY … TO STDOUT (FORMAT binary)' | psql -c 'COPY … FROM STDIN (FORMAT binary)'`, a table at a "
        "time; changed rows into a temporary table, and an UPDATE from there"
    )
    schema = "raw_copy"
    incremental = False

    def forget(self) -> None:
        """Create the tables."""
        with self.setting.checkout.connect("source") as source, self.setting.checkout.connect("warehouse") as warehouse:
            warehouse.execute(f"create schema {self.schema}")
            for table, key in self.setting.dataset.keys.items():
                rows = source.execute(
                    "select format('%%I %%s', attname, format_type(atttypid, atttypmod)) from pg_attribute "
                    "where attrelid = %s::regclass and attnum > 0 and not attisdropped order by attnum",
                    [table],
                ).fetchall()
                columns = ", ".join(column for (column,) in rows)
                warehouse.execute(f"create table {self.schema}.{table} ({columns}, primary key ({', '.join(key)}))")

    def load(self) -> Measured:
        """Copy all tables."""
        return self.run(
            *(self._pipe(table, [f"copy {self.schema}.{table} from stdin"]) for table in self.setting.dataset.keys)
        )

    def load_changed(self, turn: int) -> Measured:
        """Copy the rows of that turn, and update them."""
        pipes = []
        for table, key in self.setting.dataset.keys.items():
            with self.setting.checkout.connect("source") as source:
                description = source.execute(
                    sql.SQL("select * from {} limit 0").format(sql.Identifier(table))
                ).description
            assert description
            ours = f"{self.schema}.{table}"
            same = " and ".join(f"t.{name} = s.{name}" for name in key)
            updates = ", ".join(f"{column.name} = s.{column.name}" for column in description)
            # no names but those of the data sets
            update = f"update {ours} t set {updates} from s where {same}"  # noqa: S608
            chosen = f"(select * from {table} where mod({key[0]}, 100) = {turn % 100})"  # noqa: S608
            statements = [f"create temp table s (like {ours})", "copy s from stdin", "analyze s", update]
            pipes.append(self._pipe(chosen, statements))
        return self.run(*pipes)

    def _pipe(self, what: str, statements: list[str]) -> list[list[str]]:
        """Return two commands: one copies, and the other runs the statements on it."""
        psql = [str(INSTALLATIONS["embedded"] / "psql"), "-qX"]
        binary = (f"{each} (format binary)" if each.startswith("copy") else each for each in statements)
        return [
            [*psql, self.setting.url("source"), "-c", f"copy {what} to stdout (format binary)"],
            [*psql, self.setting.url("warehouse"), *(argument for each in binary for argument in ("-c", each))],
        ]
