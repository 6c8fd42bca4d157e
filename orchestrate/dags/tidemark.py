"""Airflow's DAGs: one for each of Meltano's schedules, and `backfill`. tidemark_airflow.dags builds them."""

from __future__ import annotations

from pathlib import Path

from tidemark_airflow import current_schedules, dags

_EXPORT = current_schedules.read(Path(__file__).parents[2])
_DAGS = [*map(dags.of_schedule, _EXPORT.schedules), dags.backfill(_EXPORT.sources)]
# Airflow finds DAGs among a module's names
globals().update({dag.dag_id: dag for dag in _DAGS})
