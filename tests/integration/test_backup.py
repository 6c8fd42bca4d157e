"""Backups: a restore equals the backup, a run continues from it, and incomplete backups are refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest
from dotenv import dotenv_values

from tests.conftest import REPOSITORY
from tests.integration.backups import assert_well, back_up, change, copy, listed, locked, newest, waiting
from tests.integration.stages import make_checkout
from tests.servers import INSTALLATIONS
from tests.singer.test_crashes import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.checkout import Checkout

STREAMS = ("customers", "products", "orders", "order_items")
AIRFLOW = "create table dag_run (id int primary key, state text); insert into dag_run values (1, 'success')"


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A loaded and built project with a database for Airflow."""
    for checkout in make_checkout(stage="built"):
        with checkout.connect("source", "postgres") as connection:
            connection.execute("create database airflow")
        with checkout.connect("source", "airflow") as connection:
            connection.execute(AIRFLOW)
        password = str(dotenv_values(checkout.root / ".env")["TIDEMARK_ADMIN_PASSWORD"])
        checkout.env |= {
            "AIRFLOW_POSTGRES_HOST": "127.0.0.1",
            "AIRFLOW_POSTGRES_PORT": checkout.env["TAP_POSTGRES_PORT"],
            "AIRFLOW_POSTGRES_USER": "tidemark",
            "AIRFLOW_POSTGRES_PASSWORD": password,
        }
        yield checkout


PICTURE = {
    "relations": """
        select oid::regclass::text, relkind::text, relowner::regrole::text,
            -- no list at all means the owner's rights alone, which a dump does not say
            coalesce(relacl, acldefault('r', relowner))::text,
            relispartition, relispopulated, obj_description(oid, 'pg_class')
        from pg_class where relnamespace::regnamespace::text in ('raw', 'staging', 'intermediate', 'marts') order by 1
    """,
    "schemas": """
        select nspname, nspowner::regrole::text, coalesce(nspacl, acldefault('n', nspowner))::text
        from pg_namespace where nspname !~ '^pg_' order by 1
    """,
    "defaults": """
        select defaclrole::regrole::text, defaclnamespace::regnamespace::text, defaclacl::text from pg_default_acl
        order by 1, 2, 3
    """,
    "database": """
        select unnest(datacl)::text, pg_get_userbyid(datdba) from pg_database where datname = current_database()
        order by 1
    """,
}


def picture(project: Checkout) -> dict[str, Any]:
    """Return rows, owners, rights and comments of everything in the warehouse, queried with SQL."""
    # without the numbers of transactions and of tables, which belong to the cluster
    row = "(to_jsonb(t) - '{_tidemark_loaded_xid,loaded_xid,xid,trimmed,relation}'::text[])::text"
    with project.connect("warehouse") as connection:
        found: dict[str, Any] = {what: connection.execute(query).fetchall() for what, query in PICTURE.items()}
        for table, kind, *_ in found["relations"]:
            if kind in {"r", "m"}:
                rows = f"select count(*), md5(string_agg({row}, '' order by {row})) from {table} t"
                found[table] = connection.execute(rows).fetchall()
    return found


def as_role(project: Checkout, role: str, query: str) -> None:
    with project.connect("warehouse") as connection:
        connection.execute(f"set role {role}")
        connection.execute(query)


def lose_the_warehouse(project: Checkout) -> None:
    """Delete the warehouse's server and Meltano's state."""
    project.tidemark("down")
    shutil.rmtree(project.root / ".tidemark" / "postgres" / "warehouse")
    (project.root / ".meltano" / "meltano.db").unlink()


def load(project: Checkout) -> dict[str, dict[str, int]]:
    """Load; return each stream's row counts."""
    return json.loads(project.tidemark("run", "--json", "tap-postgres", "target-postgres").splitlines()[-1])["report"][
        "streams"
    ]


def test_a_lost_warehouse_is_restored_with_its_rights_and_the_next_run_reads_only_new_rows(project):
    with project.connect("warehouse") as connection:
        # as in a cluster that is years old
        connection.execute("update raw.orders set _tidemark_loaded_xid = '90000000000'")
    before = picture(project)
    assert any(kind == "m" for _, kind, *_ in before["relations"])
    back_up(project)
    change(project, "update products set price = price + 1, updated_at = now() where product_id <= 3")
    lose_the_warehouse(project)
    said = project.tidemark("restore", "latest")
    assert "tidemark state check" in said, "it says what to do next"
    assert picture(project) == before
    as_role(project, "tidemark_reporter", "select count(*) from marts.fct_sales")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_role(project, "tidemark_reporter", "select from raw.orders")

    # another cluster numbers its transactions anew, and no row may seem to come from the future
    ahead = "select count(*) from raw.orders where _tidemark_loaded_xid >= pg_snapshot_xmin(pg_current_snapshot())"
    assert project.rows("warehouse", ahead) == [(0,)]
    states = json.loads(project.tidemark("state", "check", "--json"))
    assert {each["stream"]: each["fit"] for each in states} == {f"public-{name}": "fits" for name in STREAMS}
    streams = load(project)
    assert streams["public-products"]["updated"] == 3
    everything = project.rows("source", "select count(*) from order_items")[0][0]
    assert sum(stream["read"] for stream in streams.values()) < everything / 2
    project.tidemark("reconcile")


@pytest.mark.long
def test_a_drill_restores_elsewhere_and_leaves_nothing(project, tmp_path):
    newest(project)
    before = picture(project), (project.root / ".meltano" / "meltano.db").read_bytes()
    change(project, "update products set price = price + 1, updated_at = now() where product_id <= 5")
    said = project.tidemark("backup", "drill", env={"TMPDIR": str(tmp_path)})
    assert "airflow: 1 rows of 1 tables are equal to the dump" in said
    assert "state: 4 streams fit the warehouse" in said
    assert "A sync resumed" in said
    assert "The drill succeeded" in said
    assert (picture(project), (project.root / ".meltano" / "meltano.db").read_bytes()) == before
    assert list(tmp_path.iterdir()) == []
    assert not [
        each for each in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(each.info["cmdline"] or ())
    ]
    load(project)


@pytest.mark.long
def test_drill_and_restore_find_a_row_missing_from_the_dump_and_change_nothing(project):
    def one_more(manifest: dict[str, Any]) -> None:
        # as if the dump had lost a row
        manifest["warehouse"]["tables"]["raw.orders"]["rows"] += 1

    backup = copy(newest(project), "tidemark-20990101T000000Z-00000d", one_more)
    before = picture(project)
    for command in (["backup", "drill", "--no-sync"], ["restore", "latest", "--replace", "--yes"]):
        error = project.refusal(*command)
        assert "The restored database differs from the dump: raw.orders has " in error
    assert picture(project) == before
    assert project.rows("warehouse", "select from pg_database where datname like 'warehouse\\_%'") == []
    project.tidemark("state", "check")
    shutil.rmtree(backup)


def back_up_amid_a_load(project: Checkout) -> None:
    """Make a backup that reads the state before a load continues, and dumps the data after it."""
    change(project, "update customers set city = 'Elsewhere', updated_at = now()")
    change(project, "update orders set shipping_fee = shipping_fee + 1, updated_at = now()")
    with locked(project, "raw.customers", "share"):
        run = project.start("run", "tap-postgres", "target-postgres")
        wait_for(lambda: waiting(project, "raw.customers"))
        # after the state is read, the dump must wait: rows of the time in between are in the data but not in the state
        with locked(project, "marts.dim_products", "access exclusive"):
            backup = project.start("backup")
            wait_for(lambda: waiting(project, "marts.dim_products"))
            change(project, "update order_items set quantity = quantity + 1, updated_at = now() where order_id <= 50")
    assert_well(backup)
    assert_well(run)


def bookmarks_in(backup: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return each stream's bookmark from a backup's state and from its data."""
    (state,) = json.loads((backup / "state.json").read_text()).values()
    told = {
        name: each["replication_key_value"] for name, each in state["completed"]["singer_state"]["bookmarks"].items()
    }
    table = ("--data-only", "--schema=raw", "--table=_tidemark_state", "--file=-")
    command = [INSTALLATIONS["embedded"] / "pg_restore", *table, backup / "warehouse"]
    dumped = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return told, dict(re.findall(r"^\S+\t(public-\S+)\t\S+\t(\S+)\t", dumped, re.MULTILINE))


@pytest.mark.long
def test_a_backup_made_during_a_load_has_no_state_beyond_its_data(project):
    back_up_amid_a_load(project)
    state, data = bookmarks_in(newest(project))
    assert state.keys() == data.keys() == {f"public-{name}" for name in STREAMS}
    assert not [stream for stream in state if state[stream] > data[stream]]


@pytest.mark.long
def test_the_next_run_continues_from_a_backup_made_during_a_load_without_a_gap(project):
    back_up_amid_a_load(project)
    change(project, "update products set price = price + 1, updated_at = now()")
    load(project)
    project.tidemark("restore", "latest", "--replace", "--yes")
    project.tidemark("state", "check")
    load(project)
    project.tidemark("reconcile")


def test_a_restore_asks_before_it_overwrites(project):
    newest(project)
    before = picture(project)
    error = project.refusal("restore", "latest")
    assert "--replace" in error
    assert "holds" in error
    assert "--yes" in project.refusal("restore", "latest", "--replace")
    assert picture(project) == before


@pytest.mark.long
def test_a_run_from_elsewhere_excludes_a_restore_and_airflow_is_restored_where_asked(project, tmp_path):
    back_up(project)
    with project.connect("source", "airflow") as connection:
        connection.execute("update dag_run set state = 'failed'")
    with locked(project, "raw.customers", "share"):
        change(project, "update customers set city = 'Here', updated_at = now()")
        # its own directory makes it another machine
        sides = {name: str(value) for name, value in dotenv_values(project.root / ".env").items()}
        sides |= {"TAP_POSTGRES_HOST": "127.0.0.1", "TARGET_POSTGRES_HOST": "127.0.0.1"}
        run = project.start("run", "tap-postgres", "target-postgres", env={**sides, "TIDEMARK_WORK_DIR": str(tmp_path)})
        wait_for(lambda: waiting(project, "raw.customers"))
        busy = project.run("tidemark", "restore", "latest", "--replace", "--yes")
    assert busy.returncode == 75, busy.stderr
    assert "Another run uses the warehouse" in busy.stderr
    assert_well(run)
    project.tidemark("restore", "latest", "--replace", "--airflow", "--yes")
    with project.connect("source", "airflow") as connection:
        assert connection.execute("table dag_run").fetchall() == [(1, "success")]
    for side, name in (("warehouse", "warehouse"), ("source", "airflow")):
        assert project.rows(side, f"select datname from pg_database where datname like '{name}_before_%'")


@pytest.mark.long
def test_a_backup_can_be_restored_by_hand_as_the_documentation_says(project):
    backup = back_up(project)
    before = picture(project)
    with project.connect("warehouse", "postgres") as connection:
        connection.execute("alter database warehouse rename to kept")
        connection.execute("create database warehouse")
    with project.connect("warehouse") as connection:
        connection.execute(project.tidemark("roles", "warehouse").encode())
    text = (project.root / "docs" / "backup.md").read_text()
    (options,) = re.findall(r"^    pg_restore (.*) --dbname=warehouse tidemark-…/warehouse$", text, re.MULTILINE)
    url = project.tidemark("dsn", "warehouse").strip()
    program = INSTALLATIONS["embedded"] / "pg_restore"
    subprocess.run([program, *options.split(), f"--dbname={url}", backup / "warehouse"], check=True)
    done = project.run("meltano", "state", "import", str(backup / "state.json"))
    assert done.returncode == 0, done.stderr
    assert {**picture(project), "database": ()} == {**before, "database": ()}
    project.tidemark("state", "check")


def test_a_changed_byte_is_refused_by_every_command_that_would_use_it(project):
    backup = copy(newest(project), "tidemark-20990101T000000Z-00000e")
    before = picture(project)
    data = max((backup / "warehouse").glob("*.dat*"), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    for command in (["backup", "verify"], ["restore", "latest", "--replace", "--yes"], ["backup", "drill"]):
        assert f"warehouse/{data.name} of backup {backup.name} was changed (its sha256 differs)" in project.refusal(
            *command
        )
        assert project.logged_code() == "backup_failed"
    assert picture(project) == before
    data.write_bytes(content[:-1])
    assert listed(project)[backup.name] is False, "a truncated file is noticed without reading it"
    manifest = backup / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"rows": 1,', '"rows": 2,', 1))
    assert listed(project)[backup.name] is False
    assert "was changed since it was written" in project.refusal("backup", "verify")
    shutil.rmtree(backup)


@pytest.fixture
def keeper(project) -> Iterator[dict[str, str]]:
    """Yield the variables with which a role restores that is no superuser, on a server that is not Tidemark's."""
    login = dotenv_values(project.root / ".env")
    password = str(login["TARGET_POSTGRES_PASSWORD"])
    with project.connect("warehouse") as connection:
        connection.execute((REPOSITORY / "docker" / "postgres" / "keeper.sql").read_text())
        connection.execute(f"alter role tidemark_keeper password '{password}'")
        connection.execute("create function marts.given_away() returns int language sql return 1")
        connection.execute("alter function marts.given_away() owner to tidemark_loader")
    yield {
        "TARGET_POSTGRES_HOST": "127.0.0.1",
        "TARGET_POSTGRES_PASSWORD": password,
        "TIDEMARK_BACKUP_USER": "tidemark_keeper",
        "TIDEMARK_BACKUP_PASSWORD": password,
    }
    with project.connect("warehouse") as connection:
        connection.execute("alter database warehouse owner to tidemark")
        connection.execute("drop function marts.given_away")
    with project.connect("warehouse", "postgres") as connection:
        replaced = connection.execute(
            "select datname from pg_database where datname like 'warehouse_before_%'"
        ).fetchall()
        for (name,) in replaced:
            connection.execute(f"drop database {name}")
        connection.execute("drop role tidemark_keeper")


FUNCTIONS = """
    select proname, proowner::regrole::text, coalesce(proacl, acldefault('f', proowner))::text, prosecdef
    from pg_proc where pronamespace::regnamespace::text in ('tidemark', 'marts') order by 1
"""


@pytest.mark.long
def test_a_role_that_is_no_superuser_restores_all_owners_and_rights(project, keeper):
    before = picture(project), project.rows("warehouse", FUNCTIONS)
    # neither may create in the schema of what they own
    assert {name for name, owner, *_ in before[1] if owner == "tidemark_loader"} >= {"given_away", "track_changes"}
    project.tidemark("backup", env=keeper)
    project.tidemark("restore", "latest", "--replace", "--yes", env=keeper)
    assert (picture(project), project.rows("warehouse", FUNCTIONS)) == before
