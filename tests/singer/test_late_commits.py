"""Writers with open and prepared transactions, and syncs in between: at the end, raw equals the source.

A state machine of Hypothesis chooses the order of steps. There is no lookback here, so that only the watermark protects
late commits; without the watermark, the same machine finds a lost row.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.singer.conftest import INCREMENTAL

if TYPE_CHECKING:
    import psycopg

    from tests.singer.conftest import Pipe

pytestmark = pytest.mark.usefixtures("prepares")
# with fewer, nothing is missed without the watermark either
EXAMPLES = 60 if "CRASHES" in os.environ else 3
WRITERS = st.integers(0, 2)
STREAMS = {
    "public-by_time": INCREMENTAL,
    "public-by_number": {"replication-method": "INCREMENTAL", "replication-key": "id"},
}
TABLES = """
    create table by_time (id int primary key, note int, updated_at timestamptz not null default now());
    create table by_number (id int generated always as identity primary key, note int);
"""


def machine(pipe: Pipe, catalog: dict[str, Any]) -> type[RuleBasedStateMachine]:  # noqa: C901 - of many rules
    class Writers(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            pipe.do("truncate by_time; truncate by_number restart identity")
            with pipe.warehouse() as connection:
                connection.execute("drop schema if exists raw cascade")
            self.state: dict[str, Any] | None = None
            self.note = 0
            self.prepared: list[str] = []
            self.writers: list[psycopg.Connection[Any]] = []
            for _ in range(3):
                writer = pipe.source()
                writer.autocommit = False
                self.writers.append(writer)

        @rule(writer=WRITERS, id_=st.integers(1, 4), commits=st.booleans())
        def write(self, writer: int, id_: int, *, commits: bool) -> None:
            self.note += 1
            session = self.writers[writer]
            session.execute(
                # skip a row that another writer has locked
                "insert into by_time select %(id)s, %(note)s where pg_try_advisory_xact_lock(%(id)s) "
                "on conflict (id) do update set note = excluded.note, updated_at = now()",
                {"id": id_, "note": self.note},
            )
            session.execute("insert into by_number (note) values (%s)", [self.note])
            if commits:
                session.commit()

        @rule(writer=WRITERS)
        def commit(self, writer: int) -> None:
            self.writers[writer].commit()

        @rule(writer=WRITERS)
        def roll_back(self, writer: int) -> None:
            self.writers[writer].rollback()

        @precondition(lambda self: len(self.prepared) < 2)
        @rule(writer=WRITERS)
        def prepare(self, writer: int) -> None:
            self.note += 1
            session, name = self.writers[writer], f"{id(self)}-{self.note}"
            session.execute("insert into by_number (note) values (%s)", [self.note])
            session.execute(f"prepare transaction '{name}'")
            session.rollback()
            self.prepared.append(name)

        @precondition(lambda self: self.prepared)
        @rule(commits=st.booleans())
        def end_prepared(self, *, commits: bool) -> None:
            pipe.do(f"{'commit' if commits else 'rollback'} prepared '{self.prepared.pop(0)}'")

        @rule()
        def sync(self) -> None:
            self.state = pipe.sync(catalog, self.state).ok().state or self.state

        def teardown(self) -> None:
            for writer in getattr(self, "writers", ()):
                writer.commit()
                writer.close()
            while getattr(self, "prepared", ()):
                self.end_prepared(commits=True)
            if hasattr(self, "state"):
                self.sync()
                for table in ("by_time", "by_number"):
                    query = "select id, note from {} order by id"
                    with pipe.source() as connection:
                        there = connection.execute(query.format(table)).fetchall()
                    assert pipe.rows(query.format(f"raw.{table}")) == there, table

    return Writers


def try_out(pipe: Pipe, *, patches: list[str]) -> None:
    pipe.do(TABLES)
    pipe.tap["lookback_seconds"] = 0
    pipe.patches = ["no lookback", *patches]
    run_state_machine_as_test(
        machine(pipe, pipe.catalog(STREAMS)),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=14,
            deadline=None,
            database=None,
            derandomize="CRASHES" not in os.environ,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_raw_equals_the_source_in_the_end_whatever_writers_do(pipe):
    try_out(pipe, patches=[])


@pytest.mark.long
def test_without_the_watermark_rows_are_missed(pipe):
    with pytest.raises(AssertionError, match=r"by_time|by_number"):
        try_out(pipe, patches=["no watermark"])
