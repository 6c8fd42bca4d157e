"""Airflow's pages of DAG runs."""

from __future__ import annotations

from urllib.parse import quote

from airflow.sdk.configuration import conf


def run_page(dag_id: str, run_id: str) -> str:
    """Return the address of a DAG run's page."""
    base = conf.get("api", "base_url", fallback="http://localhost:8080").rstrip("/")
    return f"{base}/dags/{quote(dag_id)}/runs/{quote(run_id, safe='')}"
