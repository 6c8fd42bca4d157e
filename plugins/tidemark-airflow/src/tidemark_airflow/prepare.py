"""Brings the metadata's database up to date: the tables of Airflow and its providers, the pools, the administrator."""

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
    """Make or alter what is missing; pools that are there keep the slots that somebody gave them."""
    initdb()
    with create_session() as session:
        known = set(session.scalars(select(Pool.pool)))
        for name in SLOTS.keys() - known:
            session.add(Pool(pool=name, slots=SLOTS[name], description=DESCRIPTIONS[name], include_deferred=False))
    logins.ensure(conf.get("core", "auth_manager"), os.environ.get("AIRFLOW_ADMIN_PASSWORD"))
