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
    """Create missing pools. Existing ones keep their slots, which somebody may have set, if these do for their tasks.

    A task that takes more slots than its pool has waits for ever.
    """
    export = current_schedules.read(environment.project_root())
    wanted = pools.descriptions(each.name for each in export.sources)
    slots = pools.slots(step for schedule in export.schedules for step in schedule.steps)
    with create_session() as session:
        known = {pool.pool: pool for pool in session.scalars(select(Pool))}
        for name in wanted.keys() - known.keys():
            session.add(Pool(pool=name, slots=slots.get(name, 1), description=wanted[name], include_deferred=False))
        for name in slots.keys() & known.keys():
            # -1 is no limit, and with 0 somebody stops all tasks
            if 0 < known[name].slots < slots[name]:
                known[name].slots = slots[name]
