"""The target with chunks from any tap: the tests write messages and files by hand."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from singer_postgres.core.wire import Chunk, StreamEnd, Table, WireColumn
from tests import programs
from tests.programs import TARGET
from tests.singer.conftest import INCREMENTAL, Pipe

if TYPE_CHECKING:
    import subprocess

    from singer_postgres.core.wire import Batch

TABLE = Table(
    source="1/1",
    schema="public",
    name="orders",
    columns=(WireColumn("id", "bigint"), WireColumn("note", "text")),
    key=("id",),
    method="INCREMENTAL",
)
EARLY, LATE = "2026-01-01T00:00:00.000000Z", "2026-01-01T01:00:00.000000Z"
END = StreamEnd(start=None, end=LATE, snapshot_at=EARLY)


@dataclass
class Messages:
    """Messages for the target, and their files."""

    pipe: Pipe
    lines: list[dict[str, Any]] = field(default_factory=list)

    def schema(self, table: Table = TABLE) -> Messages:
        properties = {column.name: {"type": ["string", "null"]} for column in table.columns}
        self.lines.append(
            {
                "type": "SCHEMA",
                "stream": f"public-{table.name}",
                "schema": {"type": "object", "properties": properties},
                "key_properties": list(table.key),
                "pgcopy": table.to_json(),
            }
        )
        return self

    def chunk(self, rows: dict[int, str], at: str = EARLY, stream: str = "public-orders", **changes: Any) -> Messages:
        content = "".join(f"{id_}\t{note}\n" for id_, note in rows.items()).encode()
        path = self.pipe.directory / f"chunk-{len(self.lines)}"
        path.write_bytes(content)
        chunk = Chunk(
            rows=len(rows), bytes=len(content), crc32=zlib.crc32(content), snapshot=at, snapshot_at=at, end=LATE
        )
        return self.batch(replace(chunk, **changes), path, stream)

    def batch(self, batch: Batch, path: Path | None = None, stream: str = "public-orders") -> Messages:
        manifest = [path.as_uri()] if path else []
        self.lines.append({"type": "BATCH", "stream": stream, "encoding": batch.to_json(), "manifest": manifest})
        return self

    def state(self, value: Any) -> Messages:
        self.lines.append({"type": "STATE", "value": value})
        return self

    def run(self) -> subprocess.CompletedProcess[str]:
        messages = self.pipe.directory / "lines"
        messages.write_text("\n".join(map(json.dumps, self.lines)))
        self.lines.clear()
        command = [TARGET, "--config", self.pipe.configs()[1], "--input", messages]
        return programs.run(command, env=self.pipe.environment())

    def ok(self) -> list[Any]:
        """Run, and return the emitted states."""
        done = self.run()
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def refused(self, code: str) -> str:
        """Run, which must fail with one error of this code, and return its line."""
        done = self.run()
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        (error,) = [line for line in done.stderr.splitlines() if "| ERROR" in line]
        assert {failure["code"] for failure in self.pipe.failures()} == {code}
        return error


@pytest.fixture
def messages(pipe: Pipe) -> Messages:
    return Messages(pipe)


def notes(messages: Messages) -> dict[int, str]:
    return dict(messages.pipe.rows("select id, note from raw.orders order by id"))


def test_a_state_is_emitted_after_everything_before_it_is_committed(messages):
    messages.schema().chunk({1: "a"}).state({"at": 1}).chunk({2: "b"}).state({"at": 2}).batch(END).state({"at": 3})
    states = messages.ok()
    assert states[-1] == {"at": 3}
    assert states == sorted(states, key=lambda state: state["at"])


def test_a_state_after_a_failed_chunk_is_not_emitted(messages):
    messages.schema().chunk({1: "a"}).state({"at": 1}).chunk({2: "b"}, crc32=1).state({"at": 2})
    done = messages.run()
    assert done.returncode == 1
    assert [json.loads(line) for line in done.stdout.splitlines()] in ([], [{"at": 1}])
    assert 2 not in notes(messages)


def test_a_failed_stream_keeps_its_bookmark_and_the_others_move_theirs(messages):
    def state(orders: int, others: int) -> dict[str, Any]:
        return {"bookmarks": {"public-orders": {"v": orders}, "public-others": {"v": others}}}

    others = replace(TABLE, name="others")
    messages.schema().schema(others).state(state(0, 0)).chunk({1: "a"}).state(state(1, 0))
    messages.chunk({2: "b"}, crc32=1).state(state(2, 0)).chunk({3: "c"}).state(state(3, 0))
    messages.chunk({1: "a"}, stream="public-others").state(state(3, 1))
    messages.batch(END, stream="public-others").batch(END).state(state(4, 2))
    done = messages.run()
    assert done.returncode == 1
    # the chunk before the failing one loads at the same time, and does not count if it has not finished by then
    before = notes(messages)
    assert before in ({}, {1: "a"})
    assert json.loads(done.stdout.splitlines()[-1]) == state(len(before), 2)
    assert messages.pipe.rows("select id from raw.others") == [(1,)]
    runs = dict(messages.pipe.rows("select stream, outcome from raw._tidemark_runs"))
    assert runs == {"public-orders": "failed", "public-others": "succeeded"}


def test_with_on_stream_error_stop_the_run_ends(messages):
    messages.pipe.target["on_stream_error"] = "stop"
    messages.schema().schema(replace(TABLE, name="others"))
    messages.chunk({2: "b"}, crc32=1).chunk({1: "a"}, stream="public-others").batch(END, stream="public-others")
    assert "was damaged in transit" in messages.refused("chunk_lost")


def test_a_chunk_that_was_read_earlier_never_overwrites_a_later_one(messages):
    messages.schema().chunk({1: "old", 2: "old"}).batch(END).ok()
    messages.schema().chunk({1: "new", 3: "new"}, LATE).batch(END).ok()
    messages.schema().chunk({1: "old", 2: "old"}).chunk({3: "older", 4: "old"}).batch(END).ok()
    assert notes(messages) == {1: "new", 2: "old", 3: "new", 4: "old"}


def test_loading_the_same_rows_again_writes_nothing(messages):
    rows = dict.fromkeys(range(50000), "x" * 100)
    messages.schema().chunk(rows).batch(END).ok()
    messages.schema().chunk(rows, LATE).batch(END).ok()
    ((before,),) = messages.pipe.rows("select pg_current_wal_lsn()")
    messages.schema().chunk(rows, LATE).batch(END).ok()
    # rewriting every row would take 7 MB or more; the limit leaves room for what the server writes by itself,
    # such as a checkpoint
    ((written,),) = messages.pipe.rows(f"select pg_wal_lsn_diff(pg_current_wal_lsn(), '{before}')")
    assert written < 700_000


def test_a_row_that_comes_back_is_undeleted(messages):
    messages.schema().chunk({1: "a"}).batch(END).ok()
    with messages.pipe.warehouse() as connection:
        connection.execute("update raw.orders set _sdc_deleted_at = now()")
    messages.schema().chunk({1: "a"}, LATE).batch(END).ok()
    assert messages.pipe.rows("select _sdc_deleted_at from raw.orders") == [(None,)]


def test_a_damaged_chunk_is_refused_and_not_loaded(messages):
    assert "was damaged in transit" in messages.schema().chunk({1: "a"}, crc32=1).refused("chunk_lost")
    assert notes(messages) == {}
    messages.schema().chunk({1: "a"})
    messages.lines[-1]["encoding"]["rows"] = 7
    assert "the tap wrote 7" in messages.refused("chunk_lost")
    assert notes(messages) == {}


def test_a_missing_chunk_file_is_reported(messages):
    messages.schema().chunk({1: "a"})
    Path(messages.pipe.directory / "chunk-1").unlink()
    assert "tap and target must share a disk" in messages.refused("chunk_lost")
    messages.schema().chunk({1: "a"})
    messages.lines[-1]["manifest"] = ["s3://bucket/chunk"]
    assert "not a file of this machine" in messages.refused("chunk_lost")


def test_a_stream_that_starts_after_the_loaded_rows_is_refused_and_one_that_starts_before_is_not(messages):
    gap = replace(END, start=LATE)
    assert "holds no rows of this source" in messages.schema().batch(gap).refused("state_ahead")
    messages.schema().chunk({1: "a"}).batch(replace(END, end=EARLY)).ok()
    assert f"holds rows up to {EARLY}" in messages.schema().batch(gap).refused("state_ahead")
    messages.schema().batch(replace(END, start=EARLY, end=LATE)).ok()
    messages.schema().batch(gap).ok()


def test_a_first_load_resumes_only_if_its_earlier_parts_are_loaded(messages):
    part = (7, 0, 10)
    going_on = {"resumed": (part,), "blocks": (7, 10, None)}
    assert "parts of its first load would be missed" in messages.schema().chunk({2: "b"}, **going_on).refused(
        "state_ahead"
    )
    messages.schema().chunk({1: "a"}, blocks=part).ok()
    messages.schema().chunk({2: "b"}, **going_on).batch(END).ok()
    assert notes(messages) == {1: "a", 2: "b"}


def test_a_first_load_that_was_committed_but_not_reported_resumes(messages):
    whole = (7, 0, None)
    messages.schema().chunk({1: "a"}, blocks=whole).batch(END).ok()
    # killed before it emitted the last state; the next run has the state before that
    messages.schema().batch(replace(END, resumed=(whole,))).ok()
    assert notes(messages) == {1: "a"}


def test_another_version_of_the_format_is_refused(messages):
    messages.schema().chunk({1: "a"})
    messages.lines[-1]["encoding"]["version"] = 2
    assert "install tap and target of the same release" in messages.refused("release_mismatch")


def test_a_column_with_a_metadata_name_is_refused(messages):
    table = replace(TABLE, columns=(*TABLE.columns, WireColumn("_sdc_sequence", "bigint")))
    assert "has a column _sdc_sequence" in messages.schema(table).chunk({}).refused("name_taken")


def test_metadata_columns_hold_what_the_sdk_documents(messages):
    messages.schema().chunk({1: "a"}).batch(END).ok()
    messages.schema().chunk({2: "b"}, LATE).batch(END).ok()
    for id_, extracted_at in ((1, EARLY), (2, LATE)):
        assert messages.pipe.rows(
            f"""
            select _sdc_extracted_at = '{extracted_at}', _sdc_received_at <= now(), _sdc_batched_at <= now(),
                _sdc_deleted_at, _sdc_sequence - extract(epoch from _sdc_batched_at) * 1000 between -60000 and 60000,
                _sdc_table_version, _sdc_sync_started_at <= _sdc_sequence,
                _tidemark_loaded_xid < pg_snapshot_xmax(pg_current_snapshot())
            from raw.orders where id = {id_}
            """
        ) == [(True, True, True, None, True, None, True, True)]
    assert (
        messages.pipe.rows("select attname from pg_attribute where attrelid = 'raw.orders'::regclass and atthasdef")
        == []
    ), "a value that holds only for the first load is not a default"


def test_a_column_altered_to_text_accepts_values_of_any_type(pipe):
    pipe.do("create table orders (id int primary key, amount numeric(12,2), at timestamptz, updated_at timestamptz)")
    pipe.do("insert into orders values (1, 1.50, '2026-01-01Z', now())")
    with pipe.warehouse() as connection:
        connection.execute("create schema raw; create table raw.orders (id int primary key, amount text, at text)")
    for _ in range(2):
        pipe.sync({"public-orders": INCREMENTAL}).ok()
    assert pipe.rows("select id, amount, at from raw.orders") == [(1, "1.50", "2026-01-01 00:00:00+00")]


def test_a_source_clock_that_went_back_is_reported(messages):
    messages.schema().chunk({1: "a"}, LATE).batch(replace(END, snapshot_at=LATE)).ok()
    error = messages.schema().chunk({1: "b"}, EARLY, start=EARLY).refused("source_clock_back")
    assert "The source's clock went back" in error
    with messages.pipe.warehouse() as connection:
        connection.execute(error.partition("in the warehouse: ")[2])
    messages.schema().chunk({1: "b"}, EARLY, start=EARLY).batch(replace(END, start=EARLY)).ok()
    assert notes(messages) == {1: "b"}
