"""Finds a DAG run in Airflow's metadata by the id that all logs and run records have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.models.dagrun import DagRun
from airflow.utils.session import NEW_SESSION, provide_session
from sqlalchemy import select

from tidemark_airflow.run_ids import run_id_of
from tidemark_airflow.run_pages import run_page

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

# the id can't be turned back into Airflow's ids, so the newest runs are tried; these take about 0.1 s
_NEWEST = 20_000


@provide_session
def find_page(run_id: str, *, session: Session = NEW_SESSION) -> str | None:
    """Return the address of the page of the DAG run, if Airflow still has the run."""
    newest = select(DagRun.dag_id, DagRun.run_id).order_by(DagRun.id.desc()).limit(_NEWEST)
    for dag, run in session.execute(newest):
        if run_id_of(dag, run) == run_id:
            return run_page(dag, run)
    return None
