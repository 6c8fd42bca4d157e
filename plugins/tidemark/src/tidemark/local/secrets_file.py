"""Secrets of the embedded servers and Airflow. They are generated once, kept in .env, and never committed."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING

from tidemark.project import database_settings, dotenv_file, variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tidemark.project.database_settings import DatabaseSettings
    from tidemark.project.directory import Project


def ensure_passwords(project: Project, sides: Iterable[DatabaseSettings]) -> bool:
    """Write to .env a password for each role of an embedded server that lacks one. Return whether any did."""
    embedded = [side for side in sides if side.embedded]
    wanting = [f"{side.prefix}_PASSWORD" for side in embedded if side.password is None]
    if embedded and database_settings.admin(project, embedded[0]).password is None:
        wanting.insert(0, "TIDEMARK_ADMIN_PASSWORD")
    warehouses = [side for side in embedded if isinstance(side, database_settings.Warehouse)]
    if warehouses and database_settings.transformer(project, warehouses[0]).password is None:
        wanting.append("DBT_POSTGRES_PASSWORD")
    if warehouses and database_settings.monitor(project, warehouses[0]).password is None:
        wanting.append("TIDEMARK_MONITOR_PASSWORD")
    if warehouses and database_settings.reporter(project, warehouses[0]).password is None:
        wanting.append("TIDEMARK_REPORTER_PASSWORD")
    _write(project, {name: secrets.token_urlsafe(24) for name in wanting})
    return bool(wanting)


def ensure_airflow(project: Project) -> None:
    """Write to .env Airflow's signing and encryption keys and its administrator's password, where they are missing."""
    there = variables.read(project)
    makers: dict[str, Callable[[], str]] = {
        # Fernet wants 32 bytes
        "AIRFLOW__CORE__FERNET_KEY": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__API__SECRET_KEY": lambda: secrets.token_urlsafe(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": lambda: secrets.token_urlsafe(64),
        "AIRFLOW_ADMIN_PASSWORD": lambda: secrets.token_urlsafe(12),
    }
    _write(project, {name: make() for name, make in makers.items() if name not in there})


def _write(project: Project, values: Mapping[str, str]) -> None:
    dotenv_file.write(
        project.dotenv,
        values,
        instead="set these variables, or set hosts of your own (TAP_POSTGRES_HOST, TARGET_POSTGRES_HOST)",
    )
