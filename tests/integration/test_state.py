"""Meltano's state compared with the warehouse: never ahead of it, and rewound by a command."""

from __future__ import annotations

import json

import pytest

from tests.integration.stages import make_checkout


@pytest.fixture(scope="module")
def project():
    """A project with two small tables, loaded."""
    for checkout in make_checkout(stage="up"):
        # only these tables are read
        extractors = checkout.root / "extract" / "extractors.meltano.yml"
        with checkout.connect("source") as connection:
            connection.execute("""
                create table notes (id int primary key, note text, updated_at timestamptz not null default now());
                create table things (id int primary key, updated_at timestamptz not null default now());
                insert into notes select n, 'first' from generate_series(1, 100) n;
                insert into things select n from generate_series(1, 10) n;
            """)
        select = '["public-notes.*", "public-things.*"]'
        incremental = '{"replication-method": "INCREMENTAL", "replication-key": "updated_at"}'
        checkout.env |= {
            "TAP_POSTGRES__SELECT": select,
            "TAP_POSTGRES__METADATA": f'{{"public-notes": {incremental}, "public-things": {incremental}}}',
        }
        assert extractors.exists()
        checkout.extract_and_load()
        yield checkout


def states(checkout) -> dict[str, dict[str, str]]:
    done = checkout.run("tidemark", "state", "check", "--json")
    return {each["stream"]: each for each in json.loads(done.stdout)}


def count(checkout) -> int:
    return checkout.rows("warehouse", "select count(*) from raw.notes")[0][0]


def restore_an_older_warehouse(checkout, meanwhile: str, *, ahead: int) -> None:
    """Restore the warehouse to a time before rows that Meltano's state counts as loaded."""
    with checkout.connect("warehouse", "postgres") as connection:
        connection.execute("create database backup template warehouse")
    with checkout.connect("source") as connection:
        connection.execute(meanwhile)
    # later than the lookback, so that bookmarks are past those rows
    checkout.extract_and_load()
    assert count(checkout) == ahead
    with checkout.connect("warehouse", "postgres") as connection:
        connection.execute("drop database warehouse with (force)")
        connection.execute("alter database backup rename to warehouse")


def test_a_state_that_fits_is_reported_as_such_and_not_rewound(project):
    assert "fits" in project.tidemark("state", "check")
    assert {each["fit"] for each in states(project).values()} == {"fits"}
    assert "nothing was changed" in project.tidemark("state", "rewind")


def test_an_older_warehouse_under_newer_state_is_refused_until_a_command_rewinds_the_state(project):
    before = count(project)
    restore_an_older_warehouse(
        project, "insert into notes values (1000, 'later', now() - interval '30 seconds')", ahead=before + 1
    )
    assert states(project)["public-notes"]["fit"] == "ahead"
    assert "`tidemark state rewind`" in project.refusal("state", "check")
    refused = project.run("meltano", "run", "tap-postgres", "target-postgres", env={"MELTANO_RUN_FORCE": "1"})
    assert refused.returncode
    assert "tidemark state rewind public-notes" in refused.stderr
    assert count(project) == before

    printed = project.tidemark("state", "rewind")
    assert "public-notes: 20" in printed
    assert {each["fit"] for each in states(project).values()} == {"fits"}
    project.extract_and_load()
    assert count(project) == before + 1


@pytest.mark.long
def test_a_truncated_table_is_read_from_the_beginning_after_a_rewind(project):
    rows = count(project)
    with project.connect("warehouse") as connection:
        connection.execute("truncate raw.notes")
    assert states(project)["public-notes"]["fit"] == "ahead"
    assert "public-notes: 20" in (printed := project.tidemark("state", "rewind"))
    assert "→ the beginning" in printed
    assert "public-things" not in printed, "a bookmark that fits does not move"
    project.extract_and_load()
    assert count(project) == rows


@pytest.mark.long
def test_a_rewound_stream_is_read_again_from_the_given_value(project):
    with project.connect("source") as connection:
        connection.execute("update notes set note = 'old stamp', updated_at = '2026-01-05' where id = 7")
    project.extract_and_load()
    stale = "select note from raw.notes where id = 7"
    assert project.rows("warehouse", stale) == [("first",)], "a replication key does not show a stamp that went back"
    project.tidemark("state", "rewind", "public-notes", "--to", "2026-01-01T00:00:00+00:00")
    assert states(project)["public-notes"]["fit"] == "behind"
    project.extract_and_load()
    assert project.rows("warehouse", stale) == [("old stamp",)]


@pytest.mark.parametrize("to", ["2999-01-01T00:00:00+00:00", "soon"])
def test_a_stream_is_not_moved_past_what_the_warehouse_holds(project, to):
    error = project.refusal("state", "rewind", "public-notes", "--to", to)
    assert to in error
    assert "beginning" in error


@pytest.mark.long
def test_the_next_run_uses_state_edited_with_meltano(project):
    name = "dev:tap-postgres-to-target-postgres"
    got = json.loads(project.run("meltano", "state", "get", name).stdout)
    got["singer_state"]["bookmarks"]["public-notes"]["replication_key_value"] = "2026-01-01T00:00:00+00:00"
    assert project.run("meltano", "state", "set", "--force", name, json.dumps(got)).returncode == 0
    assert states(project)["public-notes"]["fit"] == "behind"
    project.extract_and_load()
    assert states(project)["public-notes"]["fit"] == "fits"


def test_invalid_state_is_reported_in_one_line(project):
    name = "dev:tap-postgres-to-target-postgres"
    got = project.run("meltano", "state", "get", name).stdout
    broken = json.dumps({"singer_state": {"bookmarks": ["public-notes"]}})
    assert project.run("meltano", "state", "set", "--force", name, broken).returncode == 0
    try:
        assert f"meltano state clear {name}" in project.refusal("state", "check")
    finally:
        project.run("meltano", "state", "set", "--force", name, got)
