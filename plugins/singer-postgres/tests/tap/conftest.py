"""A source with a table of each kind of column, and the settings of a tap that reads it."""

from __future__ import annotations

import json
import os
from typing import Any

import psycopg2

# made by tests/singer/test_sdk_suites.py: the settings of a database that the tests may fill
CONNECTION: dict[str, Any] = json.loads(os.environ["SINGER_POSTGRES_TEST_CONNECTION"])
SCHEMA = "sdk_suite"
_SOURCE = f"""
    drop schema if exists {SCHEMA} cascade;
    create schema {SCHEMA};
    set search_path = {SCHEMA};
    create type mood as enum ('glad', 'sad');
    create table everything (
        id bigint primary key, small smallint, real real, double double precision, price numeric(12,2), yes boolean,
        note text, short varchar(20), letter char(3), raw bytea, day date, hour time, local timestamp,
        at timestamptz not null, length interval, token uuid, document json, data jsonb, tags text[], numbers integer[],
        mood mood, address inet, span int4range
    );
    insert into everything
    select n, n, n / 3.0, n / 3.0, n * 1.1, n % 2 = 0, 'note ' || n, 'short', 'abc', '\\x00ff', '2026-01-01', '12:34',
        '2026-01-01 12:34:56.789', timestamptz '2026-01-01' + n * interval '1 second', '1 day 02:03:04',
        '00000000-0000-0000-0000-000000000001',
        '{{"a": 1}}', '{{"b": [1, null]}}', '{{a,"b c",NULL}}', '{{1,2}}', 'glad',
        '127.0.0.1', '[1,5)'
    from generate_series(1, 200) n;
    insert into everything (id, at) values (0, now());
    create table keyless (page text, seen integer);
    insert into keyless select 'page ' || n, n from generate_series(1, 5) n;
    create view seen as select id, note, at from everything;
    create table parted (id integer, part integer, primary key (id, part)) partition by list (part);
    create table parted_1 partition of parted for values in (1);
    create table parted_2 partition of parted for values in (2);
    insert into parted select n, n % 2 + 1 from generate_series(1, 10) n;
"""


def settings(**more: Any) -> dict[str, Any]:
    return {**CONNECTION, "filter_schemas": [SCHEMA], **more}


def make_source() -> None:
    parameters = {("dbname" if name == "database" else name): value for name, value in CONNECTION.items()}
    connection = psycopg2.connect(**parameters)
    with connection, connection.cursor() as cursor:
        cursor.execute(_SOURCE)
    connection.close()
