"""The run's id in all logs: Meltano's, dbt's, the warehouse's run records and an alert have the same."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5


def run_id_of(dag_id: str, run_id: str) -> str:
    """Return it for a DAG run, from Airflow's own id of that run. It is a UUID because Meltano accepts nothing else."""
    return str(uuid5(NAMESPACE_URL, f"airflow:{dag_id}/{run_id}"))
