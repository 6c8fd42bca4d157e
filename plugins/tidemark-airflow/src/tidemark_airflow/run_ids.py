"""The id by which all logs of a run are found: Meltano's, dbt's, the warehouse's history and an alert have the same."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5


def run_id_of(dag_id: str, run_id: str) -> str:
    """Return it for a run of a DAG, by Airflow's own id of that run; Meltano takes UUIDs only."""
    return str(uuid5(NAMESPACE_URL, f"airflow:{dag_id}/{run_id}"))
