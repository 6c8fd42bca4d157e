"""The environment of all of Airflow: orchestrate/airflow.env, overridden by .env, overridden by the process's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from dotenv import dotenv_values

from tidemark_airflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

# variables of .env for Airflow and our plugin; without the passwords of the source's reader and the warehouse's writers
_OURS = ("AIRFLOW", "TIDEMARK_", "OTEL_", "MELTANO_DATABASE_URI", "TARGET_POSTGRES_", "DBT_SCHEMA_PREFIX")
_NOT_OURS = {"TIDEMARK_ADMIN_PASSWORD", "TARGET_POSTGRES_USER", "TARGET_POSTGRES_PASSWORD"}
_CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
# for psycopg in Airflow's asynchronous sessions
UNPREPARED = {"prepare_threshold": None}
# the values that Meltano accepts for source and warehouse
_TRUE = {"1", "on", "true", "yes"}
_SECRETS = ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET")


def project_root() -> Path:
    """Return the project: MELTANO_PROJECT_ROOT, or else the nearest meltano.yml above the working directory.

    Raises:
        UsageError: there is no meltano.yml.
    """
    if named := os.environ.get("MELTANO_PROJECT_ROOT"):
        return Path(named)
    here = Path.cwd()
    for directory in (here, *here.parents):
        if (directory / "meltano.yml").is_file():
            return directory
    raise UsageError(f"There is no meltano.yml in {here} or above it; run this inside a Tidemark project.")


def compose(root: Path, process: Mapping[str, str], *, pooled: bool = True) -> dict[str, str]:
    """Return the environment for Airflow.

    Args:
        root: the project.
        process: the environment of this process.
        pooled: whether to connect to the metadata's database through its pooler, if it has one.
    """
    dotenv = {
        name: value
        # with ${NAME} expanded, as Meltano and tidemark do
        for name, value in _read(root / ".env", expanded=True).items()
        if name.startswith(_OURS) and name not in _NOT_OURS
    }
    found = {**_read(root / "orchestrate" / "airflow.env"), **dotenv, **process}
    work = Path(found.get("TIDEMARK_WORK_DIR") or root)
    home = found.setdefault("AIRFLOW_HOME", str(work / ".tidemark" / "airflow"))
    address = f"http://{found['AIRFLOW__API__HOST']}:{found['AIRFLOW__API__PORT']}"
    found.setdefault(_CONNECTION, _metadata(found, pooled=pooled))
    derived = {
        "MELTANO_PROJECT_ROOT": str(root),
        "AIRFLOW__CORE__DAGS_FOLDER": str(root / "orchestrate" / "dags"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": f"{home}/passwords.json",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{home}/logs",
        **_asynchronous(found),
        **_metrics(found),
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        # for libpq: Airflow needs its times in UTC, whatever the server's default is
        "PGTZ": "UTC",
    }
    return {**derived, **found}


def refuse_without_secrets(environment: Mapping[str, str]) -> None:
    """Refuse to start without secrets. Otherwise each process would generate its own and trust none of the others.

    Raises:
        UsageError: a secret is missing.
    """
    if missing := [name for name in _SECRETS if not environment.get(name)]:
        raise UsageError(f"{', '.join(missing)} is not set; set it in .env, or run `make airflow`, which does.")


def _metadata(found: Mapping[str, str], *, pooled: bool) -> str:
    def part(name: str, default: str) -> str:
        return quote(found.get(f"AIRFLOW_POSTGRES_{name}") or default, safe="")

    login = f"{part('USER', 'airflow')}:{part('PASSWORD', '')}"
    at = "POOLER_" if pooled and found.get("AIRFLOW_POSTGRES_POOLER_HOST") else ""
    host = f"{part(f'{at}HOST', '127.0.0.1')}:{part(f'{at}PORT', '6432' if at else '5435')}"
    return f"postgresql+psycopg2://{login}@{host}/{part('DATABASE', 'airflow')}{_tls(found)}"


def _tls(found: Mapping[str, str]) -> str:
    """Return libpq's parameters for TLS, from the same settings as for source and warehouse."""
    if found.get("AIRFLOW_POSTGRES_SSL_ENABLE", "").lower() not in _TRUE:
        return ""
    words = {"sslmode": found.get("AIRFLOW_POSTGRES_SSL_MODE") or "verify-full"}
    if authority := found.get("AIRFLOW_POSTGRES_SSL_CERTIFICATE_AUTHORITY"):
        words["sslrootcert"] = authority
    return f"?{urlencode(words, quote_via=quote)}"


def _asynchronous(found: Mapping[str, str]) -> dict[str, str]:
    """Return how Airflow's asynchronous sessions connect: with psycopg, as its other sessions do.

    Airflow would use asyncpg. That does not know libpq's parameters for TLS, and it prepares statements that a pooler
    then looks for in another session.
    """
    kind, _, rest = found[_CONNECTION].partition("://")
    if kind.partition("+")[0] != "postgresql" or f"{_CONNECTION}_ASYNC" in found:
        return {}
    return {
        f"{_CONNECTION}_ASYNC": f"postgresql+psycopg_async://{rest}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC": "tidemark_airflow.environment.UNPREPARED",
    }


def _metrics(found: Mapping[str, str]) -> dict[str, str]:
    """Return what sends Airflow's metrics to OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, if that is set."""
    if not found.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
        return {}
    return {
        "AIRFLOW__METRICS__OTEL_ON": "True",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
        # Prometheus makes the label `job` of it
        "OTEL_SERVICE_NAME": "airflow",
    }


def _read(path: Path, *, expanded: bool = False) -> dict[str, str]:
    return {name: value for name, value in dotenv_values(path, interpolate=expanded).items() if value}
