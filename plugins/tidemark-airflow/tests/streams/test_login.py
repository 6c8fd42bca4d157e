"""Who is let in to the page, by a real Airflow."""

from __future__ import annotations

import time

import jwt
import pytest
from running import JWT_SECRET, Airflow

# what the app has, what one might think that it has, and what it would have without care
PATHS = [
    *("/", "/api/streams", "/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"),
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
def test_whoever_may_see_runs_and_logged_in_sees_the_page(airflow, how, user):
    token = airflow.token(user)
    login = LOGINS[how](token)
    answer = airflow.ask("/tidemark/", **login)
    assert answer.status_code == 200
    assert "public-customers" in answer.text
    # in Airflow's frame, and in nobody else's
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    streams = airflow.ask("/tidemark/api/streams", **login).json()["streams"]
    assert "public-customers" in [stream["stream"] for stream in streams]
    assert airflow.ask("/tidemark/docs", **login).status_code == 404


@pytest.mark.parametrize("how", LOGINS)
def test_a_token_that_ran_out_or_was_made_up_or_may_see_no_runs_lets_nobody_in(airflow, how):
    bad = {
        "ran out": (forged(airflow, exp=int(time.time()) - 60), 401),
        "made up": ("made.up.token", 403),
        "signed by others": (jwt.encode({"sub": "viewer", "role": "admin"}, "x" * 64, algorithm="HS512"), 403),
        "no rights": (forged(airflow, role=None), 403),
    }
    # what the others are made like is good
    bad["good"] = (forged(airflow), 200)
    for why, (token, status) in bad.items():
        login = LOGINS[how](token)
        for path in ("/", "/api/streams"):
            assert (why, airflow.ask(f"/tidemark{path}", **login).status_code) == (why, status)


def test_a_dags_name_in_the_address_opens_nothing(airflow):
    token = forged(airflow, role=None)
    answer = airflow.ask("/tidemark/?dag_id=one", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403


def test_airflow_has_it_in_its_navigation_and_in_a_frame_of_its_own(airflow):
    answer = airflow.ask("/api/v2/plugins", headers={"Authorization": f"Bearer {airflow.token()}"}).json()
    (plugin,) = [plugin for plugin in answer["plugins"] if plugin["name"] == "tidemark"]
    (view,) = plugin["external_views"]
    assert (view["name"], view["url_route"], view["destination"]) == ("Streams", "streams", "nav")
    page = airflow.ask(f"/{view['href']}", cookies={"_token": airflow.token()})
    assert page.status_code == 200
