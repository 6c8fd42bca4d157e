"""What the warehouse knows of dbt's models and tests, and whether a build is running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core import advisory_locks
from tidemark.metrics import catalogue

if TYPE_CHECKING:
    from typing import LiteralString

    import psycopg

    from tidemark.metrics.samples import Samples
    from tidemark.metrics.streams import SystemTables

    Connection = psycopg.Connection[dict[str, Any]]

_RUNS, _TESTS, _MODELS = "_tidemark_model_runs", "_tidemark_test_results", "_tidemark_models"
# one look into the index for each model, however many builds are recorded; dbt deletes those of removed models
_LATEST = """
    with recursive models (model) as (
        (select model from {runs} order by model limit 1)
        union all
        select (select model from {runs} where model > models.model order by model limit 1)
        from models where model is not null
    )
    select models.model, latest.*, (
        select extract(epoch from started_at)::float8 + seconds::float8 from {runs} run
        where run.model = models.model and outcome = 'success' order by started_at desc limit 1
    ) as built
    from models cross join lateral (
        select outcome, seconds::float8, rows_written from {runs} run
        where run.model = models.model order by started_at desc limit 1
    ) latest
    where models.model is not null
"""
_RESULTS = """
    select model, result, count(*) as tests, extract(epoch from max(max(ran_at)) over ())::float8 as ran
    from {tests} group by model, result
"""
# dbt does not count the rows of materialized views
_SIZES = """
    select model, rows_total from {models} join pg_catalog.pg_class on relname = model
    where relkind in ('r', 'p') and relnamespace = to_regnamespace({schema})
"""


def collect(connection: Connection, tables: SystemTables, schema: str, samples: Samples) -> None:
    """Add what is known of the models whose runs are recorded in `schema`."""

    def rows(table: str, query: LiteralString, **names: str) -> list[dict[str, Any]]:
        if not tables.version(schema, table):
            return []
        parts = {name: sql.Identifier(schema, value) for name, value in names.items()}
        quoted = sql.Literal(sql.Identifier(schema).as_string())
        return connection.execute(sql.SQL(query).format(**parts, schema=quoted)).fetchall()

    for row in rows(_RUNS, _LATEST, runs=_RUNS):
        samples.add(catalogue.MODEL_LAST_SUCCESS, row["built"], row["model"])
        samples.add(catalogue.MODEL_LAST_RUN, 1, row["model"], row["outcome"])
        samples.add(catalogue.MODEL_SECONDS, row["seconds"], row["model"])
        samples.add(catalogue.MODEL_ROWS, row["rows_written"], row["model"])
    ran = None
    for row in rows(_TESTS, _RESULTS, tests=_TESTS):
        samples.add(catalogue.MODEL_TESTS, row["tests"], row["model"], row["result"])
        ran = row["ran"]
    samples.add(catalogue.TESTS_RAN, ran)
    for row in rows(_MODELS, _SIZES, models=_MODELS):
        samples.add(catalogue.MODEL_ROWS_TOTAL, row["rows_total"], row["model"])
    samples.add(
        catalogue.BUILD_LOCKED, advisory_locks.key("tidemark transform", schema) in advisory_locks.held(connection)
    )
