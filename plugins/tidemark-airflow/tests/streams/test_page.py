"""The page for a warehouse filled by real runs, and for one that does not answer."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from datetime import datetime
from html import unescape
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from running import REPOSITORY, Filled

from tidemark_airflow.streams import page
from tidemark_airflow.streams.settings import Monitor, WarehouseSettings, parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi.responses import Response


@pytest.fixture(autouse=True)
def _variables(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in filled.variables.items():
        monkeypatch.setenv(name, value)


@contextmanager
def for_a_while(filled: Filled, change: str, back: str) -> Iterator[None]:
    filled.do(change)
    try:
        yield
    finally:
        filled.do(back)


def body(response: Response) -> str:
    return unescape(bytes(response.body).decode())


def found() -> dict[str, Any]:
    response = page.streams()
    assert response.status_code == 200, response.body
    return json.loads(bytes(response.body))


def stream(name: str) -> dict[str, Any]:
    (one,) = [each for each in found()["streams"] if each["stream"] == name]
    return one


def test_a_stream_shows_what_its_runs_did_and_how_far_and_fresh_it_is(filled):
    customers = stream("public-customers")
    assert [run["outcome"] for run in customers["runs"]] == ["succeeded"] * 3
    assert [run["rows_read"] for run in customers["runs"][:2]] == [200, 1]
    assert customers["runs"][1]["rows_updated"] == 1
    with psycopg.connect(filled.owner) as connection:
        ((bookmark,),) = connection.execute(
            "select bookmark from raw._tidemark_state where stream = 'public-customers'"
        )
    assert customers["bookmark"] == bookmark
    html = body(page.page())
    assert all(text in html for text in ("public-customers", "raw.customers", bookmark[:10]))


def test_lag_counts_from_when_the_whole_stream_was_last_read_and_not_from_a_backfill_or_repair(filled):
    with psycopg.connect(filled.owner, options="-c TimeZone=UTC") as connection:
        ((read, touched),) = connection.execute(
            "select (select max(extracted_at) from raw._tidemark_runs where stream = 'public-orders' "
            "and run_id not like 'reconcile-%'), extracted_at from raw._tidemark_state where stream = 'public-orders'"
        )
    assert read < touched
    overview = found()
    (orders,) = [each for each in overview["streams"] if each["stream"] == "public-orders"]
    assert len(orders["runs"]) == 4
    at = datetime.fromisoformat(overview["at"])
    assert orders["lag_seconds"] == pytest.approx((at - read).total_seconds(), abs=0.01)


def test_without_run_records_lag_and_bookmark_come_from_the_state(filled):
    away = "alter table raw._tidemark_runs rename to {}"
    with for_a_while(filled, away.format("away"), "alter table raw.away rename to _tidemark_runs"):
        customers = stream("public-customers")
    assert (customers["runs"], customers["outcome"]) == ([], "loaded")
    assert customers["lag_seconds"] > 0
    assert customers["bookmark"]


def test_a_stream_that_follows_the_log_is_as_fresh_as_its_slot_and_one_that_left_it_says_why(filled):
    filled.do("alter table raw._tidemark_state add column if not exists repair text")
    slots = (
        "create table raw._tidemark_slots as select source, 's'::text as slot, '0/15D4E10'::pg_lsn as position, "
        "now() - interval '5 seconds' as committed_at from raw._tidemark_state limit 1;"
        "grant select on raw._tidemark_slots to tidemark_watcher;"
        "update raw._tidemark_state set slot = 's', is_loading = false where stream = 'public-customers';"
        "update raw._tidemark_state set slot = 's', is_loading = true where stream = 'public-orders';"
        "update raw._tidemark_state set repair = 'its merge failed' where stream = 'public-order_items'"
    )
    back = (
        "drop table raw._tidemark_slots; update raw._tidemark_state set slot = null, is_loading = null, repair = null"
    )
    with for_a_while(filled, slots, back):
        customers, orders, items = (stream(f"public-{name}") for name in ("customers", "orders", "order_items"))
        html = body(page.page())
    assert (customers["log"], customers["bookmark"]) == ("following", "0/15D4E10")
    assert 5 <= customers["lag_seconds"] < 60
    assert (orders["log"], items["log"], items["repair"]) == ("loading", "left the log", "its merge failed")
    assert "LOG_BASED, left the log: its merge failed. `tidemark slots repair` brings it back." in html
    assert "Its first load from the table is not complete" in html
    assert stream("public-customers")["log"] is None


def test_a_failed_stream_says_why_and_its_lag_counts_from_its_last_success(filled):
    overview = found()
    (products,) = [each for each in overview["streams"] if each["stream"] == "public-products"]
    assert products["outcome"] == "failed"
    assert "raw.products.updated_at is timestamp with time zone" in products["runs"][-1]["error"]
    with psycopg.connect(filled.owner, options="-c TimeZone=UTC") as connection:
        ((succeeded, others),) = connection.execute(
            "select max(extracted_at) filter (where stream = 'public-products'), max(extracted_at) "
            "from raw._tidemark_runs where outcome = 'succeeded'"
        )
    assert succeeded < others
    lag = datetime.fromisoformat(overview["at"]) - succeeded
    assert products["lag_seconds"] == pytest.approx(lag.total_seconds(), abs=0.01)
    assert "raw.products.updated_at is timestamp with time zone" in body(page.page())


def test_a_stream_that_was_never_loaded_is_there_and_says_so():
    suppliers = stream("public-suppliers")
    assert (suppliers["outcome"], suppliers["lag_seconds"], suppliers["runs"]) == ("never loaded", None, [])
    html = body(page.page())
    assert "never loaded" in html
    assert "Not compared: public-suppliers has not been loaded into raw.suppliers" in html


def test_a_comparisons_result_is_shown_and_a_repair_is_not_a_run():
    outcomes = {each["stream"]: (each["comparison"] or {}).get("outcome") for each in found()["streams"]}
    assert outcomes == {
        "public-customers": "different",
        "public-order_items": "equal",
        "public-orders": "repaired",
        "public-products": None,
        "public-suppliers": "failed",
    }
    html = body(page.page())
    assert "Rows: 2 missing." in html
    assert "Rows: 1 different, 1 repaired." in html
    assert not any(run["run_id"].startswith("reconcile-") for run in stream("public-orders")["runs"])


def test_a_schema_change_is_shown_for_thirty_days(filled):
    (change,) = found()["schema_changes"]
    assert (change["stream"], change["column"], change["change"]) == ("public-customers", "nickname", "added")
    moved = "update raw._tidemark_schema_changes set changed_at = changed_at {} interval '31 days'"
    with for_a_while(filled, moved.format("-"), moved.format("+")):
        assert found()["schema_changes"] == []


def test_a_model_shows_its_latest_run_and_when_it_was_last_built(filled):
    before = {model["model"]: model for model in found()["models"]}
    assert len(before) >= 15
    assert {model["outcome"] for model in before.values()} == {"success"}
    assert before["fct_orders"]["rows"] == 1000
    failed = """
        insert into marts._tidemark_model_runs (run_id, invocation_id, model, outcome, started_at, seconds, message)
        values ('x', 'x', 'dim_dates', 'error', now(), 1.5, E'\\nit broke\\nat line 3'),
            ('x', 'x', 'fct_orders', 'skipped', now(), 0, null)
    """
    with for_a_while(filled, failed, "delete from marts._tidemark_model_runs where run_id = 'x'"):
        after = {model["model"]: model for model in found()["models"]}
        html = body(page.page())
    for model, outcome in (("dim_dates", "error"), ("fct_orders", "skipped"), ("fct_sales", "success")):
        assert (after[model]["outcome"], after[model]["built_at"]) == (outcome, before[model]["built_at"])
    assert ">it broke<" in html
    assert "at line 3" not in html


def test_the_last_twenty_runs_are_drawn(filled):
    many = """
        insert into raw._tidemark_runs (source, stream, run_id, table_name, started_at, outcome)
        select source, stream, 'x' || n, table_name, now() - n * interval '1 day', 'failed'
        from raw._tidemark_state, generate_series(1, 30) n where stream = 'public-orders'
    """
    with for_a_while(filled, many, "delete from raw._tidemark_runs where run_id ~ '^x'"):
        runs = stream("public-orders")["runs"]
        html = body(page.page())
    assert [run["outcome"] for run in runs] == ["failed"] * 16 + ["succeeded"] * 4
    assert "16 failed, 4 succeeded" in html


def test_each_source_is_shown_by_its_name_and_with_its_own_schema(filled, tmp_path, monkeypatch):
    (tmp_path / "orchestrate").mkdir()
    sources = [
        {"name": name, "tap": f"tap-{name}", "schema": schema, "shown": []}
        for name, schema in (("postgres", "raw"), ("crm", "raw_crm"))
    ]
    made_from = {"paths": [], "digest": hashlib.sha256().hexdigest()}
    content = {"schedules": [], "sources": sources, "made_from": made_from}
    (tmp_path / "orchestrate/schedules.json").write_text(json.dumps(content))
    monkeypatch.setenv("MELTANO_PROJECT_ROOT", str(tmp_path))
    other = """
        create schema raw_crm;
        create table raw_crm._tidemark_runs (like raw._tidemark_runs including all);
        insert into raw_crm._tidemark_runs (source, stream, run_id, table_name, outcome)
        values ('the crm', 'public-contacts', 'x', 'contacts', 'running');
    """
    granted = (
        "grant usage on schema raw_crm to tidemark_monitor",
        "grant select on raw_crm._tidemark_runs to tidemark_monitor",
    )
    with for_a_while(filled, other, "drop schema raw_crm cascade"):
        # somebody else's schema
        assert "contacts" not in body(page.page())
        assert found()["notes"] == []
        filled.do(*granted)
        contacts = stream("public-contacts")
        assert (contacts["source"], contacts["table"]) == ("crm", "raw_crm.contacts")
        html = body(page.page())
        assert "Source crm" in html
        assert "Source postgres" in html
        # the database's identifier says nothing to a person
        assert contacts["database"] not in html


def test_a_stream_that_moved_to_another_database_is_shown_once(filled):
    moved = """
        insert into raw._tidemark_runs (source, stream, run_id, table_name, outcome, started_at)
        values ('the new one', 'public-orders', 'x', 'orders', 'succeeded', now() + interval '1 minute')
    """
    with for_a_while(filled, moved, "delete from raw._tidemark_runs where source = 'the new one'"):
        assert stream("public-orders")["database"] == "the new one"


def test_text_from_the_warehouse_is_never_markup(filled):
    bad = "</style><script>alert(1)</script>"
    places = f"""
        update raw._tidemark_runs set error = '{bad}' || E'\\nsecond line' where outcome = 'failed';
        insert into raw._tidemark_runs (source, stream, run_id, table_name)
        values ('x', '{bad}', 'x" onload="x', '{bad}');
        insert into raw._tidemark_schema_changes (source, stream, table_name, column_name, change, was, becomes, run_id)
        values ('x', '{bad}', '{bad}', '{bad}', '{bad}', '{bad}', '{bad}', 'x');
        insert into marts._tidemark_model_runs (run_id, invocation_id, model, outcome, started_at, seconds, message)
        values ('x', 'x', '{bad}', '"{bad}', now(), 0, '{bad}');
    """
    back = """
        delete from raw._tidemark_runs where source = 'x'; delete from raw._tidemark_schema_changes where source = 'x';
        delete from marts._tidemark_model_runs where run_id = 'x';
    """
    with psycopg.connect(filled.owner) as connection:
        ((error,),) = connection.execute("select error from raw._tidemark_runs where outcome = 'failed'")
        restored = f"update raw._tidemark_runs set error = {sql.quote(error)} where outcome = 'failed'"
    with for_a_while(filled, places, f"{back}; {restored}"):
        html = bytes(page.page().body).decode()
    assert html.count("&lt;script&gt;alert(1)") >= 10
    # the page's own
    assert html.count("<script") == 1
    assert html.count("</style>") == 1
    assert 'onload="x' not in html
    assert "second line" not in html


def test_a_table_that_may_not_be_read_is_named_and_the_rest_is_shown(filled):
    grant = "{} on raw._tidemark_reconciles {} tidemark_monitor"
    with for_a_while(filled, grant.format("revoke select", "from"), grant.format("grant select", "to")):
        (note,) = found()["notes"]
        html = body(page.page())
    assert "The role tidemark_watcher may not read raw._tidemark_reconciles" in note
    assert note in html
    assert "public-customers" in html


def test_a_schema_without_usage_rights_leads_to_a_note_and_no_traceback(filled):
    grant = "{} on schema raw {} tidemark_monitor"
    with for_a_while(filled, grant.format("revoke usage", "from"), grant.format("grant usage", "to")):
        html = body(page.page())
    assert "may not read raw._tidemark_runs" in html
    assert "`tidemark roles warehouse`" in html


def test_an_empty_warehouse_leads_to_a_note(monkeypatch):
    monkeypatch.setenv("TARGET_POSTGRES_DATABASE", "postgres")
    response = page.page()
    assert response.status_code == 200
    assert "Nothing has been loaded into the schema raw yet: run the pipeline." in body(response)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"TARGET_POSTGRES_PORT": "1"}, "TARGET_POSTGRES_HOST, _PORT and _DATABASE"),
        ({"TARGET_POSTGRES_DATABASE": "nothing"}, "TARGET_POSTGRES_HOST, _PORT and _DATABASE"),
        ({"TIDEMARK_MONITOR_PASSWORD": "hunter2-hunter2"}, "TIDEMARK_MONITOR_USER and _PASSWORD"),
        ({"TIDEMARK_MONITOR_USER": "nobody"}, "TIDEMARK_MONITOR_USER and _PASSWORD"),
        ({"TARGET_POSTGRES_PORT": "x"}, "TARGET_POSTGRES_PORT is 'x'"),
        ({"TARGET_POSTGRES_SSL_ENABLE": "yes"}, "can't be reached"),
    ],
    ids=["away", "no such database", "wrong password", "no such role", "no port", "no TLS"],
)
def test_an_unreachable_warehouse_leads_to_a_message_without_the_password(monkeypatch, variables, says):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for response in (page.page(), page.streams()):
        assert response.status_code == 503
        assert says in body(response)
        assert os.environ["TIDEMARK_MONITOR_PASSWORD"] not in body(response)
        assert "Traceback" not in body(response)


def test_the_page_does_not_wait_for_a_warehouse_that_does_not_answer_in_time(filled):
    with psycopg.connect(filled.owner) as connection:
        connection.execute("lock table raw._tidemark_runs in access exclusive mode")
        response = page.page()
        connection.rollback()
    assert response.status_code == 503
    assert "did not answer in time" in body(response)


def test_the_pipelines_address_is_the_default(monkeypatch):
    # Airflow's environment has neither package
    for package in ("singer-postgres", "tidemark"):
        monkeypatch.syspath_prepend(str(REPOSITORY / "plugins" / package / "src"))
    from tidemark.project import database_settings  # noqa: PLC0415

    monkeypatch.delenv("TARGET_POSTGRES_PORT")
    own, ours = WarehouseSettings(), database_settings.Warehouse()
    names = ("port", "database", "default_target_schema", "ssl_enable", "ssl_mode", "ssl_certificate_authority")
    assert [getattr(own, name) for name in names] == [getattr(ours, name) for name in names]
    assert (own.host, Monitor().user) == (ours.address, database_settings.MonitorLogin().user)


def test_tls_settings_are_those_of_tap_and_target(monkeypatch):
    monkeypatch.setenv("TARGET_POSTGRES_SSL_ENABLE", "true")
    monkeypatch.setenv("TARGET_POSTGRES_SSL_CERTIFICATE_AUTHORITY", "/etc/ca.pem")
    given = parameters(WarehouseSettings(), Monitor())
    assert (given["sslmode"], given["sslrootcert"]) == ("verify-full", "/etc/ca.pem")
