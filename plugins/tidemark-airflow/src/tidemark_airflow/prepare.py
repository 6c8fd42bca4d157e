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
    export = current_schedules.read(environment.project_root())
    wanted = pools.descriptions(each.name for each in export.sources)
    # the runs that share a load are meant to run at once
    slots = dict.fromkeys(wanted, pools.SLOTS)
    for step in (step for schedule in export.schedules for step in schedule.steps if step.shards > 1):
        pool = pools.of_source(step.source)
        slots[pool] = max(slots[pool], step.shards)
    with create_session() as session:
        known = set(session.scalars(select(Pool.pool)))
        for name in wanted.keys() - known:
            session.add(Pool(pool=name, slots=slots[name], description=wanted[name], include_deferred=False))
