"""Who may see the page, tested with a real Airflow."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import jwt
import pytest
from running import JWT_SECRET, Airflow

from tidemark_airflow.run_ids import run_id_of

# paths that the app has, paths that one might expect, and paths that it would have by default
PATHS = [
    *("/", "/api/streams", "/runs/5", "/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"),
    *("/nothing", "/api", "/api/streams/", "//", "/%2e"),
]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
LOGINS = {
    "a token": lambda token: {"headers": {"Authorization": f"Bearer {token}"}},
    "a browser's cookie": lambda token: {"cookies": {"_token": token}},
}


def forged(airflow: Airflow, **claims: object) -> str:
    """Return a viewer's token with other claims, signed as the server signs."""
    token = airflow.token()
    was = jwt.decode(token, options={"verify_signature": False})
    header = jwt.get_unverified_header(token)
    return jwt.encode({**was, **claims}, JWT_SECRET, algorithm=header["alg"], headers=header)


@pytest.mark.parametrize("path", PATHS)
def test_nobody_sees_anything_without_logging_in(airflow, path):
    for method in METHODS:
        answer = airflow.ask(f"/tidemark{path}", method)
        assert (method, answer.status_code) == (method, 401)
        assert "raw." not in answer.text


@pytest.mark.parametrize("how", LOGINS)
@pytest.mark.parametrize("user", ["viewer", "admin"])
def test_a_logged_in_user_who_may_see_runs_sees_the_page(airflow, how, user):
    token = airflow.token(user)
    login = LOGINS[how](token)
    answer = airflow.ask("/tidemark/", **login)
    assert answer.status_code == 200
    assert "public-customers" in answer.text
    # only Airflow may show it in a frame
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    streams = airflow.ask("/tidemark/api/streams", **login).json()["streams"]
    assert "public-customers" in [stream["stream"] for stream in streams]
    assert airflow.ask("/tidemark/docs", **login).status_code == 404


@pytest.mark.parametrize("how", LOGINS)
def test_an_expired_or_forged_token_or_one_without_the_right_to_runs_is_refused(airflow, how):
    bad = {
        "ran out": (forged(airflow, exp=int(time.time()) - 60), 401),
        "made up": ("made.up.token", 403),
        "signed by others": (jwt.encode({"sub": "viewer", "role": "admin"}, "x" * 64, algorithm="HS512"), 403),
        "no rights": (forged(airflow, role=None), 403),
    }
    # the token that the others are derived from is valid
    bad["good"] = (forged(airflow), 200)
    for why, (token, status) in bad.items():
        login = LOGINS[how](token)
        for path in ("/", "/api/streams"):
            assert (why, airflow.ask(f"/tidemark{path}", **login).status_code) == (why, status)


def test_a_dags_name_in_the_address_opens_nothing(airflow):
    token = forged(airflow, role=None)
    answer = airflow.ask("/tidemark/?dag_id=one", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403


def test_airflow_shows_the_page_in_its_navigation_and_in_a_frame(airflow):
    answer = airflow.ask("/api/v2/plugins", headers={"Authorization": f"Bearer {airflow.token()}"}).json()
    (plugin,) = [plugin for plugin in answer["plugins"] if plugin["name"] == "tidemark"]
    (view,) = plugin["external_views"]
    assert (view["name"], view["url_route"], view["destination"]) == ("Streams", "streams", "nav")
    page = airflow.ask(f"/{view['href']}", cookies={"_token": airflow.token()})
    assert page.status_code == 200


def test_a_runs_id_leads_to_the_page_of_its_dag_run(airflow):
    dag, run = "tidemark_daily", "scheduled__2026-05-01T03:00:00+00:00"
    with closing(sqlite3.connect(airflow.home / "airflow.db")) as metadata, metadata:
        metadata.execute(
            "insert into dag_run (dag_id, run_id, run_type, run_after) values (?, ?, 'scheduled', '2026-05-01 03:00')",
            [dag, run],
        )
    headers = {"Authorization": f"Bearer {airflow.token()}"}
    answer = airflow.ask(f"/tidemark/runs/{run_id_of(dag, run)}", headers=headers)
    assert answer.status_code == 307
    assert answer.headers["location"].endswith("/dags/tidemark_daily/runs/scheduled__2026-05-01T03%3A00%3A00%2B00%3A00")
    unknown = airflow.ask(f"/tidemark/runs/{run_id_of(dag, 'another')}", headers=headers)
    assert unknown.status_code == 404
    assert "started by hand" in unknown.json()["detail"]
