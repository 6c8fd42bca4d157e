"""A foreign database: no replication keys, composite keys, bytea. It needs only configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

NORTHWIND = Path(
    os.environ.get("NORTHWIND_SQL") or REPOSITORY.parent / "shared" / "data" / "northwind" / "northwind.sql"
)


@pytest.mark.skipif(not NORTHWIND.is_file(), reason="needs the Northwind dump; name it in NORTHWIND_SQL")
def test_configuration_alone_is_enough_to_load_northwind(started):
    with started.connect("source", "postgres") as connection:
        connection.execute("create database northwind")
    elsewhere = {
        "TAP_POSTGRES_DATABASE": "northwind",
        "TAP_POSTGRES__SELECT": '["public-*.*"]',
        "TAP_POSTGRES__METADATA": json.dumps({"*": {"replication-method": "FULL_TABLE"}}),
        "TARGET_POSTGRES_DEFAULT_TARGET_SCHEMA": "raw_northwind",
        "MELTANO_RUN_STATE_ID_SUFFIX": "northwind",
    }
    started.tidemark("psql", "source", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(NORTHWIND), env=elsewhere)
    for _ in range(2):  # the second run must not double a row
        started.extract_and_load(elsewhere)

    with started.connect("source", "northwind") as source, started.connect("warehouse") as warehouse:
        tables = [
            (name, columns)
            for name, columns in source.execute(
                """
                select relname, array_agg(attname::text order by attnum)
                from pg_class join pg_attribute on attrelid = pg_class.oid and attnum > 0 and not attisdropped
                where relnamespace = 'public'::regnamespace and relkind = 'r'
                group by relname order by relname
                """
            )
        ]
        assert len(tables) == 14
        for table, columns in tables:
            query = f"select {', '.join(columns)} from {{}}.{table}"
            assert normal(warehouse.execute(query.format("raw_northwind"))) == normal(
                source.execute(query.format("public"))
            ), table


def normal(rows):
    """Return the rows in a fixed order."""
    return sorted(rows, key=repr)
