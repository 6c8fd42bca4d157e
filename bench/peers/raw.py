"""Raw COPY, the lower bound: binary, one pipe per table, into tables with the same columns and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.servers import INSTALLATIONS

from bench.peers.base import Peer

if TYPE_CHECKING:
    from bench.measure import Measured


class Raw(Peer):
    """psql, piped into psql."""

    name = "raw COPY"
    settings = (
        "`psql -c 'COPY … TO STDOUT (FORMAT binary)' | psql -c 'COPY … FROM STDIN (FORMAT binary)'`, a table at a time"
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
        psql = str(INSTALLATIONS["embedded"] / "psql")
        pipes = [
            [
                [psql, "-qX", self.setting.url("source"), "-c", f"copy {table} to stdout (format binary)"],
                [
                    psql,
                    "-qX",
                    self.setting.url("warehouse"),
                    "-c",
                    f"copy {self.schema}.{table} from stdin (format binary)",
                ],
            ]
            for table in self.setting.dataset.keys
        ]
        return self.run(*pipes)
