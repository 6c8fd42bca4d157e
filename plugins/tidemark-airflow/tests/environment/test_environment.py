from __future__ import annotations

import json

import pytest
from sqlalchemy.engine import make_url

from tidemark_airflow import environment, logins

SYNC, ASYNC = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"
ARGUMENTS = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC"
FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"


@pytest.fixture
def compose(tmp_path):
    (tmp_path / "orchestrate").mkdir()
    (tmp_path / "orchestrate" / "airflow.env").write_text("AIRFLOW__API__HOST=127.0.0.1\nAIRFLOW__API__PORT=8080\n")
    return lambda pooled=True, **process: environment.compose(tmp_path, process, pooled=pooled)


def test_the_metadata_is_where_its_variables_say(compose):
    found = compose(
        AIRFLOW_POSTGRES_HOST="db.example.com", AIRFLOW_POSTGRES_USER="o'hara", AIRFLOW_POSTGRES_PASSWORD="p@/?"
    )
    url = make_url(found[SYNC])
    assert (url.drivername, url.username, url.password) == ("postgresql+psycopg2", "o'hara", "p@/?")
    assert (url.host, url.port, url.database, dict(url.query)) == ("db.example.com", 5435, "airflow", {})


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ENABLE": "true"}, {"sslmode": "verify-full"}),
        ({"ENABLE": "on", "MODE": "require"}, {"sslmode": "require"}),
        (
            {"ENABLE": "1", "CERTIFICATE_AUTHORITY": "/etc/my ca&co.pem"},
            {"sslmode": "verify-full", "sslrootcert": "/etc/my ca&co.pem"},
        ),
        ({"ENABLE": "false", "MODE": "require"}, {}),
        ({"MODE": "require"}, {}),
    ],
    ids=["on", "with a mode", "with an authority", "off", "not asked for"],
)
def test_the_metadata_is_reached_over_tls_with_the_same_settings_as_source_and_warehouse(compose, variables, words):
    found = compose(**{f"AIRFLOW_POSTGRES_SSL_{name}": value for name, value in variables.items()})
    for name in (SYNC, ASYNC):
        assert dict(make_url(found[name]).query) == words


def test_a_pooler_is_used_except_to_create_and_alter_tables(compose):
    named = {"AIRFLOW_POSTGRES_HOST": "db", "AIRFLOW_POSTGRES_POOLER_HOST": "pooler"}
    for name in (SYNC, ASYNC):
        assert (make_url(compose(**named)[name]).host, make_url(compose(**named)[name]).port) == ("pooler", 6432)
        direct = make_url(compose(**named, pooled=False)[name])
        assert (direct.host, direct.port) == ("db", 5435)


def test_asynchronous_sessions_connect_as_the_others_do_and_prepare_nothing(compose):
    found = compose(**{SYNC: "postgresql+psycopg2://me:secret@db/airflow?sslmode=require"})
    assert found[ASYNC] == "postgresql+psycopg_async://me:secret@db/airflow?sslmode=require"
    assert found[ARGUMENTS] == "tidemark_airflow.environment.UNPREPARED"
    assert environment.UNPREPARED == {"prepare_threshold": None}


@pytest.mark.parametrize(
    "named",
    [{SYNC: "sqlite:////tmp/airflow.db"}, {ASYNC: "postgresql+other://me@db/airflow"}],
    ids=["not PostgreSQL", "named by the user"],
)
def test_asynchronous_sessions_with_another_driver_stay_as_they_are(compose, named):
    found = compose(**named)
    assert found.get(ASYNC) == named.get(ASYNC)
    assert ARGUMENTS not in found


def test_the_simple_logins_password_file_is_not_readable_by_others(tmp_path):
    file = tmp_path / "passwords.json"
    said = logins.note(
        {"AIRFLOW_ADMIN_PASSWORD": "hunter2", "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(file)}
    )
    assert json.loads(file.read_text()) == {"admin": "hunter2"}
    assert file.stat().st_mode & 0o077 == 0
    assert said.startswith("user admin, password hunter2 ")


def test_the_password_of_fab_is_in_no_file():
    said = logins.note({"AIRFLOW_ADMIN_PASSWORD": "hunter2", "AIRFLOW__CORE__AUTH_MANAGER": FAB})
    assert said.startswith("user admin, password hunter2 ")


@pytest.mark.parametrize(
    "variables",
    [{}, {"AIRFLOW_ADMIN_PASSWORD": "x", "AIRFLOW__CORE__AUTH_MANAGER": "company.Login"}],
    ids=["no password", "another login"],
)
def test_an_unused_password_is_not_printed(variables):
    assert logins.note(variables) == "log in as AIRFLOW__CORE__AUTH_MANAGER defines it"


def test_metrics_are_sent_if_an_address_is_named(compose):
    named = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}
    assert compose(**named)["AIRFLOW__METRICS__OTEL_ON"] == "True"
    assert compose(**named)["OTEL_SERVICE_NAME"] == "airflow"
    assert compose(**named, OTEL_SERVICE_NAME="ours")["OTEL_SERVICE_NAME"] == "ours"
    assert not [name for name in compose() if name.startswith(("OTEL_", "AIRFLOW__METRICS__"))]
