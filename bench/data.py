"""The data to load: the demo shop, or the tables of TPC-H, which DuckDB generates offline."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import sql

from bench.venvs import venv

if TYPE_CHECKING:
    import psycopg
    from tests.integration.checkout import Checkout

_TPCH = """
create table region (r_regionkey int primary key, r_name text, r_comment text);
create table nation (n_nationkey int primary key, n_name text, n_regionkey int, n_comment text);
create table supplier (s_suppkey bigint primary key, s_name text, s_address text, s_nationkey int, s_phone text,
    s_acctbal numeric(15,2), s_comment text);
create table customer (c_custkey bigint primary key, c_name text, c_address text, c_nationkey int, c_phone text,
    c_acctbal numeric(15,2), c_mktsegment text, c_comment text);
create table part (p_partkey bigint primary key, p_name text, p_mfgr text, p_brand text, p_type text, p_size int,
    p_container text, p_retailprice numeric(15,2), p_comment text);
create table partsupp (ps_partkey bigint, ps_suppkey bigint, ps_availqty bigint, ps_supplycost numeric(15,2),
    ps_comment text, primary key (ps_partkey, ps_suppkey));
create table orders (o_orderkey bigint primary key, o_custkey bigint, o_orderstatus text, o_totalprice numeric(15,2),
    o_orderdate date, o_orderpriority text, o_clerk text, o_shippriority int, o_comment text);
create table lineitem (l_orderkey bigint, l_partkey bigint, l_suppkey bigint, l_linenumber bigint,
    l_quantity numeric(15,2), l_extendedprice numeric(15,2), l_discount numeric(15,2), l_tax numeric(15,2),
    l_returnflag text, l_linestatus text, l_shipdate date, l_commitdate date, l_receiptdate date, l_shipinstruct text,
    l_shipmode text, l_comment text, primary key (l_orderkey, l_linenumber));
"""


Sum = tuple[int | None, str | None]
"""A table's number of rows and their checksum; None if it is missing or empty."""


@dataclass(frozen=True)
class Dataset:
    """The tables of the source's schema public, each with its key and its numeric columns; all have `updated_at`."""

    title: str
    keys: dict[str, list[str]]
    numbers: dict[str, list[str]]
    rows: int
    sums: dict[str, Sum] = field(default_factory=dict)
    """The source's checksums since its last change."""


def prepare(checkout: Checkout, *, scale: float, tpch: float | None, work: Path) -> Dataset:
    """Fill the source and return a description of the data."""
    if tpch is None:
        # a hundred million rows take longer than any command of a test may
        with checkout.start("demo", "load", "--scale", str(scale)) as loading:
            said = loading.communicate()[0]
        if loading.returncode:
            raise RuntimeError(said)
        title = f"The demo shop at scale {scale:g}"
    else:
        with checkout.connect("source") as connection:
            _load_tpch(connection, tpch, work)
        title = f"TPC-H at scale factor {tpch:g}"
    with checkout.connect("source") as connection:
        connection.execute("vacuum analyze")
        keys = connection.execute(
            """
            select relname, array_agg(attname::text order by array_position(indkey::int[], attnum::int))
            from pg_index join pg_class c on c.oid = indrelid join pg_attribute on attrelid = c.oid
            where indisprimary and attnum = any(indkey) and relnamespace = 'public'::regnamespace
            group by relname order by relname
            """
        ).fetchall()
        numbers = connection.execute(
            """
            select table_name, array_agg(column_name::text order by ordinal_position)
            from information_schema.columns
            where table_schema = 'public' and data_type in ('numeric', 'integer', 'bigint')
            group by table_name
            """
        ).fetchall()
        rows = sum(_count(connection, table) for table, _ in keys)
    return Dataset(title, dict(keys), dict(numbers), rows)


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    row = connection.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table))).fetchone()
    assert row
    return int(row[0])


def tpch_python(work: Path) -> Path:
    """Return the Python of an environment with DuckDB and its generator of TPC-H."""
    return venv(work, "tpch", ["duckdb==1.4.1", "duckdb-extension-tpch==1.4.1"])


def change(connection: psycopg.Connection[Any], dataset: Dataset, turn: int) -> int:
    """Change a hundredth of each table's rows, different ones each time; return how many."""
    changed = 0
    dataset.sums.clear()
    for table, key in dataset.keys.items():
        statement = sql.SQL("update {} set updated_at = clock_timestamp() where mod({}, 100) = %s").format(
            sql.Identifier(table), sql.Identifier(key[0])
        )
        changed += connection.execute(statement, [turn % 100]).rowcount
    return changed


def source_checksum(connection: psycopg.Connection[Any], dataset: Dataset, table: str) -> Sum:
    """Return the checksum of a table of the source, which is read only once after each change."""
    if table not in dataset.sums:
        dataset.sums[table] = checksum(connection, dataset, "public", table)
    return dataset.sums[table]


def checksum(connection: psycopg.Connection[Any], dataset: Dataset, schema: str, table: str) -> Sum:
    """Return a table's number of rows, and the sum of their hashes, which is equal for two tables with the same rows.

    A hash is of the key, the numbers and the time of the last change, in types that are the same for all peers.
    """
    columns = [
        *(sql.SQL("{}::numeric").format(sql.Identifier(name)) for name in _numbers(dataset, table)),
        sql.SQL("updated_at::timestamptz"),
    ]
    query = sql.SQL("select count(*), sum(hash_record_extended(row({columns}), 0)) from {table}").format(
        columns=sql.SQL(", ").join(columns), table=sql.Identifier(schema, table)
    )
    row = connection.execute(query).fetchone()
    assert row
    return row[0], None if row[1] is None else hashlib.sha256(str(row[1]).encode()).hexdigest()[:32]


def _numbers(dataset: Dataset, table: str) -> list[str]:
    """Return the names of the key's columns and all numeric ones, each once."""
    return list(dict.fromkeys([*dataset.keys[table], *dataset.numbers.get(table, [])]))


def _load_tpch(connection: psycopg.Connection[Any], factor: float, work: Path) -> None:
    connection.execute(_TPCH)
    files = work / f"tpch-{factor:g}"
    if not files.exists():
        scratch = files.with_suffix(".new")
        scratch.mkdir(exist_ok=True)
        maker = Path(__file__).with_name("tpch_files.py")
        subprocess.run([tpch_python(work), maker, scratch, str(factor)], check=True)
        scratch.rename(files)
    for table in ("region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"):
        with (
            connection.cursor() as cursor,
            cursor.copy(f"copy {table} from stdin (format csv)") as copy,
            (files / f"{table}.csv").open("rb") as file,
        ):
            while piece := file.read(2**20):
                copy.write(piece)
        connection.execute(
            # a different stamp for each row: with equal stamps, `>=` a bookmark would read the whole table again
            f"alter table {table} add column updated_at timestamptz not null "
            "default now() - interval '1 day' - random() * interval '365 days'"
        )
        connection.execute(f"create index on {table} (updated_at)")
