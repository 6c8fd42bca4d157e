"""Airflow's DAGs: one of each of Meltano's schedules, from orchestrate/schedules.json, and `backfill`.

Reads that one file and does nothing else when Airflow looks at it. tidemark_airflow.dags has how a DAG is made.
"""

from __future__ import annotations

from pathlib import Path

from tidemark_airflow import dags, schedules

_EXPORT = schedules.parse(Path(__file__).parents[1].joinpath("schedules.json").read_text())
_DAGS = [*map(dags.of_schedule, _EXPORT.schedules), dags.backfill(_EXPORT.streams)]
# Airflow looks for DAGs among a module's names
globals().update({dag.dag_id: dag for dag in _DAGS})
