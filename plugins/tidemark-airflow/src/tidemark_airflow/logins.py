"""The administrator: one user `admin` with the password AIRFLOW_ADMIN_PASSWORD, in either of Airflow's logins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIMPLE = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
_FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
_NAME = "admin"
_ROLE = "Admin"


def note(environment: Mapping[str, str]) -> str:
    """Write the password where Airflow's simple login reads it; return what to tell the user."""
    manager = environment.get("AIRFLOW__CORE__AUTH_MANAGER") or _SIMPLE
    password = environment.get("AIRFLOW_ADMIN_PASSWORD")
    if not password or manager not in {_SIMPLE, _FAB}:
        return "log in as AIRFLOW__CORE__AUTH_MANAGER defines it"
    if manager == _SIMPLE:
        file = Path(environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
        file.touch(mode=0o600)
        file.write_text(json.dumps({_NAME: password}))
    return f"user {_NAME}, password {password} (AIRFLOW_ADMIN_PASSWORD)"


def ensure(manager: str, password: str | None) -> None:
    """Create the user in FAB's tables if that is Airflow's login, or set its password and role again.

    FAB stores a hash. If the password did not change, sessions stay valid.

    Args:
        manager: the class of the auth manager.
    """
    if manager != _FAB or not password:
        return
    # load Flask only if it is needed
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder  # noqa: PLC0415
    from werkzeug.security import check_password_hash  # noqa: PLC0415

    with get_application_builder() as builder:
        users = builder.sm
        role = users.find_role(_ROLE)
        user = users.find_user(username=_NAME)
        if user is None:
            users.add_user(_NAME, "Tidemark", "Administrator", f"{_NAME}@localhost", role, password)
            return
        if role not in user.roles:
            user.roles.append(role)
            users.update_user(user)
        if not check_password_hash(user.password, password):
            users.reset_password(user.id, password)
