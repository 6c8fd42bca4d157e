"""Airflow's DAGs: one for each of Meltano's schedules, from orchestrate/schedules.json, and `backfill`.

When Airflow parses this file, it reads only that JSON file. tidemark_airflow.dags builds the DAGs.
"""

from __future__ import annotations

from pathlib import Path

from tidemark_airflow import dags, schedules

_EXPORT = schedules.parse(Path(__file__).parents[1].joinpath("schedules.json").read_text())
_DAGS = [*map(dags.of_schedule, _EXPORT.schedules), dags.backfill(_EXPORT.sources)]
# Airflow finds DAGs among a module's names
globals().update({dag.dag_id: dag for dag in _DAGS})
