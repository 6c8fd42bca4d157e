"""docker-compose.yml on one server: built, started, used, damaged and removed."""

from __future__ import annotations

import re
import subprocess
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests import second_source
from tests.airflow.server import until
from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from tests.compose.stack import Stack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]
DAG = "hourly-sync-and-transform"
JOB = "tap-postgres target-postgres dbt-postgres:run dbt-postgres:test"
# each server's port, inside and outside its container
SERVERS = {"source_db": 5433, "target_db": 5434, "airflow_db": 5435}


@pytest.fixture(scope="module")
def stack(stack: Stack) -> Stack:
    # how soon a task is retried
    with (stack.root / "orchestrate" / "airflow.env").open("a") as settings:
        settings.write("\nTIDEMARK_DAG_RETRY_DELAY_SECONDS=5\n")
    stack.make("compose-up")
    stack.airflow.log_in()
    return stack


def changed(stack: Stack, rows: int = 500) -> None:
    """Simulate traffic in the shop."""
    file = "/etc/tidemark-shop/change.sql"
    statement = ["psql", "--quiet", "--dbname", "shop", "--single-transaction", "--file", file]
    done = stack.command(
        *stack.compose_command, "exec", "--no-TTY", "--env", f"PGOPTIONS=-c demo.rows={rows}", "source_db", *statement
    )
    assert done.returncode == 0, done.stderr


def assert_right(stack: Stack) -> None:
    """Compare source and warehouse row by row, and the facts with the source."""
    done = stack.run("etl", "tidemark", "reconcile", "--repair", "--allow-deletes", "20%")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r": (missing|different) ", done.stdout), done.stdout
    assert stack.warehouse("select count(*) from raw.orders where _sdc_deleted_at is null") == stack.source(
        "select count(*) from orders"
    )
    assert stack.warehouse("select count(*) - count(distinct order_item_id) from raw.order_items") == "0"


def test_all_services_are_healthy_after_one_command(stack):
    services = stack.services()
    for name, containers in services.items():
        for each in containers:
            state = each["State"]
            if name == "airflow-init":
                assert state["ExitCode"] == 0
            else:
                assert state["Health"]["Status"] == "healthy", (name, state)
    assert {"source_db", "target_db", "airflow_db", "pgbouncer", "dbt", "airflow-init"} < services.keys()
    # a second time, nothing changes
    before = {each["Id"] for containers in stack.services().values() for each in containers}
    stack.make("compose-up")
    after = {each["Id"] for containers in stack.services().values() for each in containers}
    assert before <= after


def test_compose_has_no_complaint_about_its_file(stack):
    done = stack.command(*stack.compose_command, "--profile", "*", "config", "--quiet")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def assert_hardened(stack: Stack, services: dict[str, list[dict[str, Any]]]) -> None:
    """Look at each container's limits and at its processes."""
    for name, containers in services.items():
        for each in containers:
            host = each["HostConfig"]
            assert host["ReadonlyRootfs"], name
            assert host["CapDrop"] == ["ALL"], name
            assert not host["CapAdd"], name
            assert "no-new-privileges:true" in host["SecurityOpt"], name
            assert host["Memory"], name
            assert host["NanoCpus"], name
            assert host["LogConfig"]["Config"]["max-size"], name
            if each["State"]["Running"]:
                top = stack.ok("docker", "top", each["Id"], "-eo", "pid,uid,args").splitlines()[1:]
                assert top
                assert [line for line in top if line.split()[1] == "0"] == [], name
                assert stack.exec(name, "sh", "-c", "touch /x || touch /opt/tidemark/x || touch /etc/x").returncode


def test_no_process_is_root_or_can_become_root_and_none_writes_to_its_image(stack):
    assert_hardened(stack, stack.services())


def test_ports_are_published_only_on_this_machine(stack):
    published = {}
    for name, containers in stack.services().items():
        for each in containers:
            for ports in (each["HostConfig"]["PortBindings"] or {}).values():
                published.setdefault(name, []).extend(port["HostIp"] for port in ports)
    assert published == {name: ["127.0.0.1"] for name in ("source_db", "target_db", "dbt", "airflow-api-server")}


def test_a_job_loads_the_sources_rows(stack):
    changed(stack)
    said = stack.make("compose-run", BLOCKS=JOB)
    assert "succeeded" in said
    assert_right(stack)
    assert int(stack.warehouse("select count(*) from marts.fct_orders")) > 5000


def test_every_command_of_dbt_runs(stack):
    done = stack.run("dbt", "tidemark", "meltano", "invoke", "dbt-postgres", "ls", "--select", "+fct_sales")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shop.marts.fct_sales" in done.stdout


def test_the_models_documentation_is_served(stack):
    page = requests.get(f"http://127.0.0.1:{stack.ports['DBT_DOCS_PORT']}/manifest.json", timeout=10).json()
    assert "model.shop.fct_orders" in page["nodes"]


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_refuses_connections_without_tls_or_a_password_and_those_of_its_owner(stack, server):
    database, login = {
        "source_db": ("shop", "tidemark_reader:" + stack.secret("TAP_POSTGRES_PASSWORD")),
        "target_db": ("warehouse", "tidemark_loader:" + stack.secret("TARGET_POSTGRES_PASSWORD")),
        "airflow_db": ("airflow", "airflow:" + stack.secret("AIRFLOW_POSTGRES_PASSWORD")),
    }[server]
    user = login.partition(":")[0]
    superuser = {"source_db": "SOURCE", "target_db": "WAREHOUSE", "airflow_db": "AIRFLOW"}[server]
    owner = "postgres:" + stack.secret(f"{superuser}_SUPERUSER_PASSWORD")
    ca, others = "/run/secrets/ca.crt", "/etc/ssl/certs/ca-certificates.crt"
    address = f"{server}:{SERVERS[server]}/{database}"
    attempts = {
        f"postgresql://{login}@{address}?sslmode=verify-full&sslrootcert={ca}": "",
        f"postgresql://{login}@{address}?sslmode=disable": "no encryption",
        f"postgresql://{user}@{address}?sslmode=require": "no password supplied",
        f"postgresql://{user}:wrong@{address}?sslmode=require": "password authentication failed",
        f"postgresql://{owner}@{address}?sslmode=require": "rejects connection",
        # another authority's certificate is not enough
        f"postgresql://{login}@{address}?sslmode=verify-full&sslrootcert={others}": "verify failed",
    }
    for dsn, refusal in attempts.items():
        done = stack.run("etl", "psql", "--no-password", dsn, "--command", "select 1")
        assert (done.returncode == 0) == (not refusal), (dsn, done.stderr)
        assert refusal in done.stderr, dsn


@pytest.mark.parametrize(
    ("block", "variable"),
    [("tap-postgres", "TAP_POSTGRES"), ("target-postgres", "TARGET_POSTGRES"), ("dbt-postgres:run", "TARGET_POSTGRES")],
)
def test_tap_target_and_dbt_refuse_a_server_that_the_authority_did_not_certify(stack, block, variable):
    blocks = ["dbt-postgres:run"] if "dbt" in block else ["tap-postgres", "target-postgres"]
    other = {f"{variable}_SSL_CERTIFICATE_AUTHORITY": "/etc/ssl/certs/ca-certificates.crt"}
    done = stack.run("etl", "tidemark", "run", *blocks, **other)
    assert done.returncode
    assert "certificate" in done.stdout + done.stderr


def test_the_api_server_can_not_reach_the_source_and_has_no_password_of_a_writer(stack):
    network = f"{stack.name}_etl_network"
    (source,) = stack.services()["source_db"]
    address = source["NetworkSettings"]["Networks"][network]["IPAddress"]
    resolve = "import socket; socket.getaddrinfo('source_db', 5433)"
    assert "Name or service" in stack.exec("airflow-api-server", "python3", "-c", resolve).stderr or (
        "name resolution" in stack.exec("airflow-api-server", "python3", "-c", resolve).stderr
    )
    # nor by its address: if the network lets it through, the server refuses
    dsn = f"postgresql://tidemark_reader:{stack.secret('TAP_POSTGRES_PASSWORD')}@{address}:5433/shop?connect_timeout=5"
    assert stack.exec("airflow-api-server", "psql", dsn, "--command", "select 1").returncode
    has = stack.exec("airflow-api-server", "ls", "/run/secrets").stdout.split()
    assert "TIDEMARK_MONITOR_PASSWORD" in has
    assert not {"TAP_POSTGRES_PASSWORD", "TARGET_POSTGRES_PASSWORD", "DBT_POSTGRES_PASSWORD"} & set(has)


def test_a_dag_that_is_started_by_rest_loads_builds_and_tests(stack):
    changed(stack)
    stack.airflow.unpause(DAG)
    run = stack.airflow.run(DAG)
    assert {state for state, _ in stack.airflow.tasks(DAG, run).values()} == {"success"}
    assert any("read" in text for _, text in stack.airflow.log(DAG, run, "extract_load"))
    assert_right(stack)
    streams = stack.airflow.session.get(f"{stack.airflow.url}/tidemark/api/streams", timeout=30)
    assert streams.status_code == 200, streams.text
    assert "public-orders" in streams.text


def test_nothing_is_shown_without_a_login(stack):
    for path in ("/api/v2/dags", "/tidemark/api/streams", "/api/v2/connections"):
        assert requests.get(f"{stack.airflow.url}{path}", timeout=10).status_code == 401, path
    wrong = {"username": "admin", "password": "admin"}
    assert requests.post(f"{stack.airflow.url}/auth/token", json=wrong, timeout=30).status_code == 401


def held(stack: Stack, table: str) -> subprocess.Popen[bytes]:
    """Lock a table of the warehouse against writers, in a session that ends with its server."""
    statement = f"begin; lock table {table} in share mode; select pg_sleep(600)"
    command = [*stack.compose_command, "exec", "--no-TTY", "target_db", "psql", "--dbname=warehouse", "-c", statement]
    holder = subprocess.Popen(
        command, cwd=stack.root, env=stack.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: stack.warehouse("select count(*) from pg_locks where mode = 'ShareLock' and granted") != "0", "held")
    return holder


def release(stack: Stack, holder: subprocess.Popen[bytes]) -> None:
    stack.warehouse(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()"
    )
    holder.wait(timeout=60)


WAITING = "select count(*) from pg_stat_activity where usename = 'tidemark_loader' and wait_event_type = 'Lock'"


def quiet(stack: Stack) -> None:
    """Wait until no run of the DAG is active: unpausing the DAG also starts the run of the last hour."""

    def ended() -> bool:
        runs = stack.airflow.get(f"/dags/{DAG}/dagRuns")["dag_runs"]
        return {run["state"] for run in runs} <= {"success", "failed"}

    until(ended, "no run is under way")


def test_a_warehouse_restarted_during_a_load_ends_with_the_right_rows(stack):
    quiet(stack)
    changed(stack, 2000)
    holder = held(stack, "raw.order_items")
    run = stack.airflow.trigger(DAG)
    # some streams are loaded by now, and this one has sent its rows
    until(lambda: stack.warehouse(WAITING) != "0", "the load is under way")
    stack.compose("restart", "target_db")
    holder.wait(timeout=60)
    assert stack.airflow.wait(DAG, run) == "success", stack.airflow.logs(DAG, run)
    # retried by the target itself, or by Airflow
    assert "is retried" in stack.airflow.logs(DAG, run) or stack.airflow.tasks(DAG, run)["extract_load"][1] > 1
    assert_right(stack)


def test_a_killed_job_leaves_no_lock_and_the_next_ends_with_the_right_rows(stack):
    changed(stack, 1000)
    holder = held(stack, "raw.order_items")
    job = stack.start_job("etl", "tidemark", "run", "tap-postgres", "target-postgres")
    until(lambda: stack.warehouse(WAITING) != "0", "the load is under way")
    (container,) = stack.ok("docker", "ps", "--quiet", "--filter", f"name={stack.name}-etl-run").split()
    stack.ok("docker", "kill", container)
    job.communicate(timeout=60)
    release(stack, holder)
    stack.make("compose-run", BLOCKS="tap-postgres target-postgres")
    assert_right(stack)


def test_a_backup_is_made_drilled_and_restored(stack):
    done = stack.run("etl", "tidemark", "backup")
    assert done.returncode == 0, done.stdout + done.stderr
    done = stack.run("etl", "tidemark", "backup", "drill")
    assert done.returncode == 0, done.stdout + done.stderr
    stack.warehouse("delete from raw.orders where order_id % 2 = 0")
    # an idle connection would block the restore
    stack.compose("stop", "airflow-scheduler", "dbt", "pgbouncer")
    try:
        done = stack.run("etl", "tidemark", "restore", "latest", "--replace", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        stack.make("compose-up")
    stack.make("compose-run", BLOCKS=JOB)
    assert_right(stack)


def add_source(stack: Stack) -> None:
    """Make a second database with a reader of its own, and add it with streams and models, as docs/compose.md says."""
    password = token_hex(24)
    for statement in (f"create role crm_reader login password '{password}'", "create database crm"):
        stack.sql("source_db", "postgres", statement)
    stack.sql("source_db", "crm", f"{second_source.TABLES}; grant select on all tables in schema public to crm_reader")
    command = [str(REPOSITORY / ".venv" / "bin" / "tidemark"), "source", "add", "crm"]
    address = ["--host", "source_db", "--port", "5433", "--user", "crm_reader", "--database", "crm"]
    stack.ok("env", f"TAP_CRM_PASSWORD={password}", *command, *address)
    second_source.select_streams(stack.root)
    second_source.add_models(stack.root)


def test_a_further_source_is_loaded_by_a_job_and_beside_the_first_by_the_dag(stack):
    add_source(stack)
    stack.make("compose-up")
    assert "public-contacts: 10 read, 10 new" in stack.make("compose-run", BLOCKS="tap-crm target-crm")
    stack.sql("source_db", "crm", "insert into contacts values (11, 'the new one', now())")

    def tasks() -> set[str]:
        return {task["task_id"] for task in stack.airflow.get(f"/dags/{DAG}/tasks")["tasks"]}

    until(lambda: "extract_load_crm" in tasks(), "the new source's task", seconds=180)
    quiet(stack)
    run = stack.airflow.run(DAG)
    states = stack.airflow.tasks(DAG, run)
    assert {"extract_load_postgres", "extract_load_crm", "dbt_run_crm_and_postgres"} <= states.keys()
    assert {state for state, _ in states.values()} == {"success"}
    found = stack.airflow.get(f"/dags/{DAG}/dagRuns/{run}/taskInstances")["task_instances"]
    pools = {task["task_id"]: task["pool"] for task in found}
    assert pools["extract_load_crm"] == "tidemark_source_crm"
    assert stack.warehouse("select count(*) from raw_crm.contacts") == "11"
    assert stack.warehouse("select count(*) from intermediate.int_contact_customers") == "11"
    # a host named in .env has TLS, and its certificate is checked
    wrong = {"TAP_CRM_SSL_CERTIFICATE_AUTHORITY": "/etc/ssl/certs/ca-certificates.crt"}
    done = stack.run("etl", "tidemark", "run", "tap-crm", "target-crm", **wrong)
    assert done.returncode
    assert "certificate" in done.stdout + done.stderr


def test_the_service_follow_has_changes_within_seconds_and_stops_with_all_that_it_has_read(stack):
    definition = stack.root / "extract" / "crm.meltano.yml"
    if not definition.exists():
        add_source(stack)
    method = "{replication-method: INCREMENTAL, replication-key: updated_at}"
    assert method in definition.read_text()
    definition.write_text(definition.read_text().replace(method, "{replication-method: LOG_BASED}"))
    stack.sql("source_db", "postgres", "alter system set wal_level = logical")
    stack.sql("source_db", "postgres", "alter role crm_reader replication")
    stack.compose("restart", "source_db")
    # the images have the project's files
    stack.make("compose-up")
    # the role of the tap may not do it itself
    done = stack.run("etl", "tidemark", "slots", "create", "crm", "--sql")
    assert done.returncode == 0, done.stdout + done.stderr
    for statement in done.stdout.splitlines():
        stack.sql("source_db", "crm", statement)
    stack.environment["FOLLOW_SOURCE"] = "crm"
    stack.make("compose-up", FOLLOW=1)

    def has(name: str) -> bool:
        return stack.warehouse(f"select count(*) from raw_crm.contacts where name = '{name}'") == "1"

    def insert(number: int, name: str) -> None:
        stack.sql("source_db", "crm", f"insert into contacts values ({number}, '{name}', now())")

    until(lambda: stack.warehouse("select to_regclass('raw_crm._tidemark_slots') is not null") == "t", "it follows")
    insert(21, "followed")
    until(lambda: has("followed"), "it has the change", seconds=60)
    insert(22, "at once")
    until(lambda: has("at once"), "it has the next one", seconds=10)
    insert(23, "the last")
    stack.compose("stop", "follow")
    (container,) = stack.services()["follow"]
    assert container["State"]["ExitCode"] == 0, stack.compose("logs", "follow")
    assert has("the last")


def texts(stack: Stack) -> dict[str, bytes]:
    """Return every text that the services left, by its place."""

    def raw(*words: str) -> bytes:
        return subprocess.run(
            words, cwd=stack.root, env=stack.environment, stdin=subprocess.DEVNULL, capture_output=True, check=True
        ).stdout

    compose = [*stack.compose_command, "--profile", "*"]
    found = {"logs": raw(*compose, "logs", "--no-color"), "configuration": raw(*compose, "config")}
    for name, containers in stack.services().items():
        for each in containers:
            found[f"inspect {name}"] = raw("docker", "inspect", each["Id"])
    execute = [*compose, "exec", "--no-TTY"]
    found["task logs"] = raw(*execute, "airflow-scheduler", "tar", "--create", "--directory=/var/log/airflow", ".")
    # .meltano/run has the settings that Meltano passes to running plugins; others can't read it
    work = ["tar", "--create", "--exclude=./.meltano/run", "--directory=/var/lib/tidemark", "."]
    found["work of tasks"] = raw(*execute, "airflow-scheduler", *work)
    for server, database in (("target_db", "warehouse"), ("airflow_db", "airflow"), ("airflow_db", "meltano")):
        found[f"database {database}"] = raw(*execute, server, "pg_dump", f"--dbname={database}")
    for image in ("etl", "airflow", "pgbouncer"):
        found[f"history of {image}"] = raw("docker", "history", "--no-trunc", f"tidemark-{image}:local")
    found["DAG's source"] = stack.airflow.session.get(
        f"{stack.airflow.url}/api/v2/dagSources/{DAG}", headers={"Accept": "text/plain"}, timeout=30
    ).content
    own = [f"dags/{DAG}/details", f"dags/{DAG}/dagRuns/~/taskInstances"]
    for path in (*own, "dags", "importErrors", "connections", "variables", "config"):
        found[f"/api/v2/{path}"] = stack.airflow.session.get(f"{stack.airflow.url}/api/v2/{path}", timeout=60).content
    return found


def test_no_secret_is_in_a_log_a_page_the_state_a_database_or_an_image(stack, tmp_path):
    everything = texts(stack)
    assert all(everything.values()), [name for name, text in everything.items() if not text]
    secrets = stack.secrets()
    # of a secret that is an address, only the password
    assert len(secrets) > 20
    for where, text in everything.items():
        for name, secret in secrets.items():
            assert secret.encode() not in text, f"{name} is in {where}"
    patterns = tmp_path / "patterns"
    # a line of a file in both images shows that the layers were read: some engines save them compressed
    known = "# The entrypoint of every container."
    patterns.write_text("\n".join([known, *secrets.values()]))
    for image in ("tidemark-airflow:local", "tidemark-pgbouncer:local"):
        layers = tmp_path / image
        layers.mkdir()
        stack.ok("bash", "-c", f"set -o pipefail; docker save {image} | tar --extract --directory {layers}")
        each = 'zcat --force -- "$1" | grep --text --only-matching --fixed-strings --file "$2" || true'
        found = stack.ok("find", str(layers), "-type", "f", "-exec", "bash", "-c", each, "-", "{}", str(patterns), ";")
        assert set(found.splitlines()) == {known}, image


def test_taking_the_services_down_with_their_data_leaves_nothing(stack):
    stack.make("compose-down")
    label = f"label=com.docker.compose.project={stack.name}"
    volumes = stack.ok("docker", "volume", "ls", "--quiet", "--filter", label).split()
    assert f"{stack.name}_target_data" in volumes
    stack.compose("down", "--volumes")
    left: dict[str, Any] = {}
    for kind, more in (("container", ["--all"]), ("volume", []), ("network", [])):
        left[kind] = stack.ok("docker", kind, "ls", "--quiet", "--filter", label, *more).split()
    assert left == {"container": [], "volume": [], "network": []}
