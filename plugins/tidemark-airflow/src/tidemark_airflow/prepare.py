"""Updates the metadata's database: the tables of Airflow and its providers, the pools, the administrator."""

from __future__ import annotations

import os

from airflow.configuration import conf
from airflow.models.pool import Pool
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from sqlalchemy import select

from tidemark_airflow import current_schedules, environment, logins, pools


def prepare() -> None:
    """Create or alter what is missing."""
    initdb()
    make_pools()
    logins.ensure(conf.get("core", "auth_manager"), os.environ.get("AIRFLOW_ADMIN_PASSWORD"))


def make_pools() -> None:
    """Create missing pools. Existing ones keep their slots, which somebody may have set."""
    wanted = pools.descriptions(each.name for each in current_schedules.read(environment.project_root()).sources)
    with create_session() as session:
        known = set(session.scalars(select(Pool.pool)))
        for name in wanted.keys() - known:
            session.add(Pool(pool=name, slots=pools.SLOTS, description=wanted[name], include_deferred=False))
