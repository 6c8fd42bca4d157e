"""The page as a FastAPI app that Airflow mounts: `/` for people, `/api/streams` for programs, and `/runs/ID` for links.

All need a login. Airflow does not authenticate requests to a plugin's app, so this app does, on every path. It requires
the right to see DAG runs, because the page shows the results of those runs.
"""

from __future__ import annotations

import secrets
from http import HTTPMethod
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep  # noqa: TC002  (FastAPI needs it at run time)
from fastapi import Depends, FastAPI, HTTPException, status
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from pydantic import ValidationError

from tidemark_airflow import current_schedules
from tidemark_airflow.environment import project_root
from tidemark_airflow.errors import UsageError
from tidemark_airflow.streams import show
from tidemark_airflow.streams.dag_runs import find_page
from tidemark_airflow.streams.run_history import HistoryError, overview
from tidemark_airflow.streams.settings import Monitor, WarehouseSettings

if TYPE_CHECKING:
    from tidemark_airflow.schedules import Source
    from tidemark_airflow.streams.overview import StreamsPage


_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def _may_see_runs(user: GetUserDep) -> None:
    # for all DAGs, because the page shows all streams: a user who may see one DAG only must not pass with its id in the
    # URL
    if not get_auth_manager().is_authorized_dag(method="GET", access_entity=DagAccessEntity.RUN, user=user):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "This page needs the right to see the runs of all DAGs.")


def _look() -> StreamsPage | HistoryError:
    try:
        return overview(WarehouseSettings(), Monitor(), _sources())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = f"{WarehouseSettings.model_config['env_prefix']}{first['loc'][0]}".upper()
        return HistoryError(f"{name} is {first['input']!r}: {first['msg']}; correct it.")
    except HistoryError as error:
        return error


def _sources() -> tuple[Source, ...]:
    """Return the project's sources; none if the file can't be read, as Airflow says where it shows its DAGs."""
    try:
        return current_schedules.read(project_root()).sources
    except (OSError, ValueError, UsageError):
        return ()


# without documentation pages, which would answer without a login
app = FastAPI(
    title="Tidemark's streams",
    dependencies=[Depends(_may_see_runs)],
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
)


@app.get("/", response_model=None)
def page() -> HTMLResponse:
    """Show the page. If the warehouse does not answer, the status is 503: browsers show it, and monitors notice."""
    look = _look()
    nonce = secrets.token_urlsafe()
    own = f"style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'"
    policy = f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"
    headers = {
        # Airflow shows the page in a frame
        "Content-Security-Policy": f"{policy}; frame-ancestors 'self'",
        "X-Frame-Options": "SAMEORIGIN",
        **_HEADERS,
    }
    return HTMLResponse(show.html(look, nonce=nonce), _status(look), headers)


@app.get("/api/streams", response_model=None)
def streams() -> JSONResponse:
    """Return the overview as JSON, or the problem in `detail`."""
    look = _look()
    content: Any = {"detail": str(look)} if isinstance(look, HistoryError) else look.model_dump(mode="json")
    return JSONResponse(content, _status(look), _HEADERS)


@app.get("/runs/{run_id}", response_model=None)
def run(run_id: str) -> RedirectResponse:
    """Lead to the DAG run whose id all logs and run records have."""
    if found := find_page(run_id):
        return RedirectResponse(found, headers=_HEADERS)
    raise HTTPException(
        status.HTTP_404_NOT_FOUND,
        f"Airflow has no DAG run with the id {run_id}: it was started by hand, or Airflow deleted its record.",
    )


# every other path, so that someone without access can't find out which paths exist
@app.api_route("/{path:path}", methods=list(HTTPMethod), response_model=None)
def nothing(path: str) -> None:
    """Answer that the path does not exist."""
    raise HTTPException(
        status.HTTP_404_NOT_FOUND,
        f"There is no /{path} here; the page is at /, its JSON at /api/streams, a DAG run at /runs/ID.",
    )


def _status(look: StreamsPage | HistoryError) -> int:
    return status.HTTP_503_SERVICE_UNAVAILABLE if isinstance(look, HistoryError) else status.HTTP_200_OK
