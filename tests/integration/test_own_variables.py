"""Tidemark's own variables, and passwords with any characters, are read alike by every program."""

from __future__ import annotations

import importlib
import re
from contextlib import contextmanager

import pytest

from tests.conftest import REPOSITORY
from tests.integration.stages import make_checkout
from tests.integration.test_settings import CONNECTION, EXTRACTION
from tidemark.backup import settings as backup_settings
from tidemark.logs import settings as logs
from tidemark.project import database_settings as settings
from tidemark.project import resolved_settings
from tidemark.run import shared_loads


@pytest.fixture
def project(bare_project):
    return bare_project


def of_login(login, field):
    """Return what reads a field of one of the warehouse's logins."""
    return lambda project: getattr(login(project, settings.read(project)[1]), field)


# variables that only tidemark reads: a value, and where it shows
OWN = {
    "DBT_POSTGRES_HOST": ("h.example", of_login(settings.transformer, "host")),
    "DBT_POSTGRES_PORT": ("6543", of_login(settings.transformer, "port")),
    "DBT_POSTGRES_USER": ("someone", of_login(settings.transformer, "user")),
    "DBT_POSTGRES_PASSWORD": ("x", of_login(settings.transformer, "password")),
    "TIDEMARK_MONITOR_USER": ("someone", of_login(settings.monitor, "user")),
    "TIDEMARK_MONITOR_PASSWORD": ("x", of_login(settings.monitor, "password")),
    "TIDEMARK_REPORTER_USER": ("someone", of_login(settings.reporter, "user")),
    "TIDEMARK_REPORTER_PASSWORD": ("x", of_login(settings.reporter, "password")),
    "TIDEMARK_ADMIN_PASSWORD": (
        "x",
        lambda project: settings.admin(project, settings.read(project)[0]).password,
    ),
    "TIDEMARK_POSTGRES_BIN": ("/opt/pg/bin", settings.postgres_bin),
    "TIDEMARK_WORK_DIR": ("/srv/work", lambda project: project.work),
    "TIDEMARK_BACKUP_TO": ("/srv/backups", lambda project: backup_settings.destination(project, None)),
    "TIDEMARK_BACKUP_KEEP": ("14", lambda project: backup_settings.read(project).keep),
    "TIDEMARK_BACKUP_KEEP_DAYS": ("30", lambda project: round(backup_settings.read(project).keep_days or 0)),
    "TIDEMARK_BACKUP_JOBS": ("7", lambda project: backup_settings.read(project).jobs),
    "TIDEMARK_BACKUP_USER": ("someone", lambda project: backup_settings.read(project).user),
    "TIDEMARK_BACKUP_PASSWORD": ("x", lambda project: backup_settings.read(project).password),
    "TIDEMARK_SHARD_PART_MB": ("64", lambda project: round((shared_loads.part_bytes(project) or 0) / 2**20)),
    "TIDEMARK_LOG_KEEP_DAYS": ("7", lambda project: logs.log_settings(project).keep_days),
    "TIDEMARK_LOG_DIR": ("/srv/logs", lambda project: project.log_dir),
    **{
        f"TIDEMARK_ELASTICSEARCH_{name.upper()}": (
            value,
            lambda project, name=name: getattr(logs.elasticsearch_settings(project), name),
        )
        for name, value in {
            "url": "https://e.example:9200/",
            "user": "someone",
            "password": "x",
            "api_key": "x",
            "ssl_certificate_authority": "/srv/ca.pem",
            "keep_days": "9",
            "kibana_url": "https://k.example:5601/",
        }.items()
    },
    "MELTANO_DATABASE_URI": ("sqlite:////srv/m.db", resolved_settings.database_uri),
    "AIRFLOW_POSTGRES_HOST": ("h.example", lambda project: settings.airflow_database(project).host),
    "AIRFLOW_POSTGRES_PORT": ("6543", lambda project: settings.airflow_database(project).port),
    "AIRFLOW_POSTGRES_USER": ("someone", lambda project: settings.airflow_database(project).user),
    "AIRFLOW_POSTGRES_PASSWORD": ("x", lambda project: settings.airflow_database(project).password),
    "AIRFLOW_POSTGRES_DATABASE": ("some", lambda project: settings.airflow_database(project).database),
    "AIRFLOW_POSTGRES_SSL_ENABLE": (
        "true",
        lambda project: str(settings.airflow_database(project).ssl_enable).lower(),
    ),
    "AIRFLOW_POSTGRES_SSL_MODE": ("require", lambda project: settings.airflow_database(project).ssl_mode),
    "AIRFLOW_POSTGRES_SSL_CERTIFICATE_AUTHORITY": (
        "/etc/ca.pem",
        lambda project: settings.airflow_database(project).ssl_certificate_authority,
    ),
}
# variables that tidemark-airflow reads; it gets .env from its `compose`
OF_AIRFLOW = re.compile(
    r"AIRFLOW_|OTEL_|TIDEMARK_(?:ALERTS|DAG|WORK_DIR|MONITOR)_?|DBT_SCHEMA_PREFIX|MELTANO_DATABASE_URI"
)


def _shown(value) -> str:
    return value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)


@pytest.mark.parametrize("store", ["process", "dotenv"])
@pytest.mark.parametrize("name", OWN)
def test_tidemarks_own_variables_are_read_from_the_process_and_from_dotenv(project, monkeypatch, name, store):
    value, seen = OWN[name]
    # dbt's login counts only if it is set
    project.dotenv.write_text("DBT_POSTGRES_USER=dbt\n" if name == "DBT_POSTGRES_PASSWORD" else "")
    if store == "process":
        project.dotenv.write_text(f"{project.dotenv.read_text()}{name}=another\n")
        monkeypatch.setenv(name, value)
    else:
        project.dotenv.write_text(f"{project.dotenv.read_text()}{name}=${{NOT_THERE:-{value}}}\n")
    assert _shown(seen(project)) == value


def test_every_variable_of_the_example_is_in_one_of_these_tables(project, monkeypatch):
    named = re.findall(r"^#([A-Z_]+)=", (REPOSITORY / ".env.example").read_text(), re.MULTILINE)
    of_plugins = {
        f"{plugin.upper().replace('-', '_')}_{setting.upper()}"
        for plugin, table in [*CONNECTION.items(), ("tap-postgres", EXTRACTION)]
        for setting in table
    }
    of_airflow = {name for name in named if OF_AIRFLOW.match(name)}
    assert {*named} - of_plugins - OWN.keys() - of_airflow == set()
    monkeypatch.syspath_prepend(REPOSITORY / "plugins/tidemark-airflow/src")
    environment = importlib.import_module("tidemark_airflow.environment")
    (project.root / "orchestrate/airflow.env").write_text("AIRFLOW__API__HOST=127.0.0.1\nAIRFLOW__API__PORT=8080\n")
    project.dotenv.write_text("".join(f"{name}='${{NOT_THERE:-of}} {name}'\n" for name in of_airflow))
    composed = environment.compose(project.root, {})
    assert {name: composed.get(name) for name in of_airflow} == {name: f"of {name}" for name in of_airflow}


ODD = "sp ace'quote\"double\\back$dollar${brace}#hash%per%41cent@:/?&=;,<>|`~^*()[]{}!+-_.ünï😀"


def quoted(value: str) -> str:
    """Quote a value for .env, as .env.example says."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("${", "${:-$}{")
    return f"'{escaped}'"


def test_a_password_with_any_characters_works_in_every_program(monkeypatch):
    with contextmanager(make_checkout)() as checkout:
        roles = ["TIDEMARK_MONITOR", "TIDEMARK_REPORTER", "TIDEMARK_ADMIN"]
        names = ["TAP_POSTGRES", "TARGET_POSTGRES", "DBT_POSTGRES", *roles]
        dotenv = checkout.root / ".env"
        dotenv.write_text("".join(f"{name}_PASSWORD={quoted(name + ODD)}\n" for name in names))
        checkout.tidemark("up")
        checkout.tidemark("demo", "load", "--scale", "0.001")
        # Meltano's own database through a URL, in which the password is quoted
        with checkout.connect("warehouse") as connection:
            connection.execute("create database meltano")
        uri = f"{checkout.urls['warehouse'].rpartition('/')[0]}/meltano".replace("postgresql:", "postgresql+psycopg:")
        dotenv.write_text(f"{dotenv.read_text()}MELTANO_DATABASE_URI='{uri}'\n")
        # Meltano, whose tap, target and dbt read it from .env; tidemark; and libpq, through its URL
        for command in (
            ("meltano", "invoke", "dbt-postgres:debug"),
            ("tidemark", "run", "tap-postgres", "target-postgres"),
            ("tidemark", "psql", "warehouse", "-c", "select"),
        ):
            done = checkout.run(*command)
            assert done.returncode == 0, (command, done.stdout + done.stderr)
            assert ODD not in done.stdout + done.stderr
        assert "All is in order." in checkout.tidemark("check")
        assert checkout.rows("source", "select 1") == [(1,)]
        # a setting in Meltano's database is found
        done = checkout.run("meltano", "config", "set", "tap-postgres", "--store=db", "database", "elsewhere")
        assert done.returncode == 0, done.stderr
        assert checkout.tidemark("dsn", "source").strip().endswith("/elsewhere")
        monkeypatch.syspath_prepend(REPOSITORY / "plugins/tidemark-airflow/src")
        environment = importlib.import_module("tidemark_airflow.environment")
        composed = environment.compose(checkout.root, {})
        assert composed["TIDEMARK_MONITOR_PASSWORD"] == f"TIDEMARK_MONITOR{ODD}"
        # without the quotes, one line says what to write
        dotenv.write_text(dotenv.read_text().replace("${:-$}{", "${"))
        refusal = checkout.refusal("check")
        assert "TAP_POSTGRES_PASSWORD" in refusal
        assert "${:-$}" in refusal
        assert "brace" not in refusal
