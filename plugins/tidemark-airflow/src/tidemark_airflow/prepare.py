"""Updates the metadata's database: the tables of Airflow and its providers, the pools, the administrator."""

from __future__ import annotations

import os

from airflow.configuration import conf
from airflow.models.pool import Pool
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from sqlalchemy import select

from tidemark_airflow import logins
from tidemark_airflow.pools import DESCRIPTIONS, SLOTS


def prepare() -> None:
    """Create or alter what is missing. Existing pools keep their slots, which somebody may have set."""
    initdb()
    with create_session() as session:
        known = set(session.scalars(select(Pool.pool)))
        for name in SLOTS.keys() - known:
            session.add(Pool(pool=name, slots=SLOTS[name], description=DESCRIPTIONS[name], include_deferred=False))
    logins.ensure(conf.get("core", "auth_manager"), os.environ.get("AIRFLOW_ADMIN_PASSWORD"))
