"""`tidemark check` names what is broken in selection, columns and replication keys, at the right level."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.checking import broken, check, only, shops, streams
from tidemark.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    yield from shops()


def test_the_demo_shop_is_in_order_and_says_so_in_a_line(checkout):
    printed = checkout.tidemark("check")
    assert "4 streams are in order: public-customers, public-order_items, public-orders, public-products" in printed
    assert "fix:" not in printed
    assert printed.endswith("All is in order.\n")


def test_deletes_that_incremental_models_would_not_see_are_a_warning(checkout):
    env = streams(customers=None, products="updated_at")
    assert check(checkout, env) == []
    found = only(check(checkout, {**env, "TARGET_POSTGRES_HARD_DELETE": "true"}))
    assert (found["stream"], found["level"]) == ("public-customers", "warning")
    assert "set hard_delete: false" in found["what"]


def test_types_that_change_are_noted_and_those_that_cannot_travel_are_errors(checkout):
    with broken(
        checkout,
        "source",
        "create type mood as enum ('good', 'bad')",
        "create domain price as numeric(12,2)",
        "create type pair as (a int, b int)",
        "create table odd (id int primary key, tree pg_node_tree, vector gtsvector, mood mood, moods mood[], "
        "price price, pair pair, place regclass, plain numeric(12,2)[], stamps tstzrange)",
        then=("drop table odd", "drop type mood, pair", "drop domain price"),
    ):
        *refused, noted = check(checkout, streams(odd=None))
        assert [finding["what"].split()[1] for finding in refused] == ["tree", "vector"]
        assert all(finding["level"] == "error" for finding in refused)
        assert noted["level"] == "note"
        for part in (
            "mood (enum mood) as text",
            "moods (array of enum mood) as text[]",
            "price (domain price) as numeric(12,2)",
            "pair (composite pair) as text",
            "place (regclass) as text",
        ):
            assert part in noted["what"]
        assert "plain" not in noted["what"]
        assert "stamps" not in noted["what"]
        masks = {"public-odd": dict.fromkeys(["tree", "vector"], "redact")}
        masked = check(checkout, streams(odd=None) | {"TAP_POSTGRES_MASKS": json.dumps(masks)})
        assert masked == [noted], "a masked column is loaded as text, whatever its type"
        # as in Meltano, excluded columns do not count
        deselected = ["public-odd.*", "!public-odd.tree", "!public-odd.vector", "!public-odd.m*", "!public-odd.p*"]
        env = {"TAP_POSTGRES__SELECT": json.dumps([*deselected, "!*.place"]), "TAP_POSTGRES__METADATA": "{}"}
        assert check(checkout, env) == []


def test_types_of_extensions_that_the_warehouse_lacks_are_noted_there(checkout):
    with broken(
        checkout,
        "source",
        "create extension citext",
        "create extension hstore",
        "create table extended (id int primary key, name citext, tags hstore[], more hstore)",
        then=("drop table extended", "drop extension citext", "drop extension hstore"),
    ):
        env = streams(extended=None)
        before = check(checkout, env)
        assert {finding["side"] for finding in before} == {"warehouse"}
        fixes = [statement for finding in before for statement in finding["fix"]]
        assert fixes == ['CREATE EXTENSION "citext";', 'CREATE EXTENSION "hstore";']
        assert "public-extended.tags, public-extended.more" in before[1]["what"]
        with broken(checkout, "warehouse", *fixes, then=("drop extension citext", "drop extension hstore")):
            assert check(checkout, env) == []


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("nothing int", ("error", "has no column changed, its replication key")),
        ("changed json not null", ("error", "no order")),
        ("changed bigint not null", ("note", "not a time")),
        ("changed numeric not null", ("note", "a row that changes but keeps its value is not read again")),
        ("changed uuid not null", ("note", "not a time")),
        ("changed timestamp not null", ("note", "so each run reads the last 12 hours again: set timestamp_timezone")),
    ],
    ids=["missing", "without-order", "a-number", "a-decimal", "an-identifier", "a-local-time"],
)
def test_an_unsuitable_replication_key_is_reported(checkout, column, says):
    indexed = ("create index on keyed (changed)",) if says[0] == "note" else ()
    with broken(
        checkout, "source", f"create table keyed (id int primary key, {column})", *indexed, then=("drop table keyed",)
    ):
        found = only(check(checkout, streams(keyed="changed")))
        limited = check(checkout, {**streams(keyed="changed"), "TAP_POSTGRES_START_DATE": "last year"})
    assert found["level"] == says[0]
    assert says[1] in found["what"]
    errors = [finding["what"] for finding in limited if finding["level"] == "error"]
    assert any("start_date is 'last year', not a date or an instant" in error for error in errors)
    doubted = [finding for finding in limited if "start_date does not limit it" in finding["what"]]
    assert len(doubted) == (says[0] == "note" and "timestamp" not in column)


def test_a_time_zone_that_is_set_ends_the_note_and_a_date_of_the_business_is_warned_of(checkout):
    tables = (
        "create table shipments (id int primary key, shipped_on timestamp not null, changed timestamp not null)",
        "create index on shipments (shipped_on)",
        "create index on shipments (changed)",
    )
    zone = {"TAP_POSTGRES_TIMESTAMP_TIMEZONE": "UTC"}
    with broken(checkout, "source", *tables, then=("drop table shipments",)):
        assert check(checkout, {**streams(shipments="changed"), **zone}) == []
        found = only(check(checkout, {**streams(shipments="shipped_on"), **zone}))
    assert found["level"] == "warning"
    assert "shipped_on sounds like a date of the business" in found["what"]


def test_tables_that_nothing_reads_and_those_without_a_rule_of_freshness_are_noted(checkout):
    found = only(check(checkout, streams(customers=None), every=True))
    assert (found["level"], found["what"]) == (
        "note",
        "3 tables are not selected: public-order_items, public-orders, public-products",
    )
    left_out = {"TAP_POSTGRES__SELECT": '["public-customers.*", "!public-order*.*", "!public-products.*"]'}
    assert check(checkout, {**streams(customers=None), **left_out}, every=True) == []


def test_xml_is_noted_where_the_warehouse_was_built_without_it(checkout):
    with broken(checkout, "source", "create table paged (id int primary key, page xml)", then=("drop table paged",)):
        found = check(checkout, streams(paged=None))
        with checkout.connect("warehouse") as connection:
            built_with = connection.execute(
                "select count(*) from pg_config where setting like '%with-libxml%'"
            ).fetchone()
        assert [each["what"] for each in found] == (
            [] if built_with != (0,) else ["its server was built without XML, so public-paged.page will become text"]
        )


def test_selection_follows_meltanos_rules_and_names_what_matches_nothing(checkout):
    env = {
        "TAP_POSTGRES__SELECT": json.dumps(["*.*", "!public-order*.*", "public-ordres.*", "public-customers.emial"]),
        "TAP_POSTGRES__METADATA": json.dumps(
            {
                "public-*": {"replication-method": "INCREMENTAL", "replication-key": "updated_at"},
                "public-supplier": {"replication-method": "FULL_TABLE"},
            }
        ),
    }
    done = checkout.run("tidemark", "check", "--json", env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("error: An error above")
    findings = json.loads(done.stdout)
    assert "2 streams are in order: public-customers, public-products" in [each["what"] for each in findings]
    found = {(each["stream"], each["level"]) for each in findings if each["level"] != "ok"}
    assert found == {("public-ordres", "error"), ("public-customers", "warning"), ("public-supplier", "warning")}


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("TAP_POSTGRES__SELECT", '["public-orders.*', "Failed to parse JSON array"),
        ("TAP_POSTGRES__METADATA", '{"public-orders": "INCREMENTAL"}', "`metadata` is"),
        ("TAP_POSTGRES_MASKS", '{"public-orders": "sha256"}', 'masks.public-orders is "sha256", and must be an object'),
        ("TARGET_POSTGRES_MAX_REJECTS", "public-orders", "max_rejects is .*, and must be a whole number"),
        (
            "TARGET_POSTGRES_RAW_PARTITIONS",
            '{"public-orders": {"by": "range", "widht": 9}}',
            "must be without widht .did you mean width.., such as",
        ),
    ],
    ids=["select", "metadata", "a part", "a number", "a misspelt part"],
)
def test_a_configuration_that_cannot_be_read_is_an_error_with_its_value(checkout, variable, value, says):
    with pytest.raises(UsageError, match=says) as raised:
        check(checkout, {variable: value})
    assert "public-orders" in str(raised.value)


def test_a_fraction_that_a_variable_cannot_hold_is_told_where_it_can_be(checkout):
    with pytest.raises(UsageError, match=r"whole number in a variable .a fraction can be in the plugin's `config`"):
        check(checkout, {"TAP_POSTGRES_MAX_SOURCE_MB_PER_S": "7.5"})


@pytest.mark.parametrize("place", ["YAML", "variable"])
def test_a_setting_of_a_wrong_form_is_one_line_from_the_check_and_from_the_run(checkout, place):
    definition = checkout.root / "extract/extractors.meltano.yml"
    before = definition.read_text()
    if place == "YAML":
        definition.write_text(
            before.replace("      select:\n", '      config: {where: ["id > 1"]}\n      select:\n', 1)
        )
    env = {"TAP_POSTGRES_WHERE": '["id > 1"]'} if place == "variable" else {}
    try:
        check_, run = (
            checkout.run("tidemark", *command, env=env)
            for command in (["check"], ["run", "tap-postgres", "target-postgres"])
        )
    finally:
        definition.write_text(before)
    for done in (check_, run):
        (line,) = done.stderr.strip().splitlines()
        assert done.returncode
        assert line.startswith("error: where is ")
        assert 'and must be an object, such as where: {"public-orders": "order_id > 10"}.' in line
    assert "runbook.md#setting_invalid" in run.stderr


def test_settings_that_do_nothing_for_the_stream_that_they_name_are_reported_with_what_to_do(checkout):
    env = {
        **streams(customers="updated_at", products=None),
        "TAP_POSTGRES_COMMIT_COLUMNS": '["public-customers", "public-orders"]',
        "TAP_POSTGRES_CHANGE_HISTORY": '["public-products"]',
        "TAP_POSTGRES_ALLOW_DUPLICATES": '["public-products"]',
        # with the default of chunks_outstanding, no reader waits for a loader
        "TAP_POSTGRES_MAX_PARALLEL": "8",
    }
    findings = check(checkout, env, every=True)
    found = {(each["level"], each["what"].partition(":")[0]) for each in findings if " names " in each["what"]}
    assert found == {
        ("error", "commit_columns names public-customers, which is INCREMENTAL and not LOG_BASED, so runs refuse that"),
        ("warning", "commit_columns names public-orders, which is not selected, so that has no effect"),
        ("error", "change_history names public-products, which is FULL_TABLE and not LOG_BASED, so runs refuse that"),
        (
            "warning",
            "allow_duplicates names public-products, which is FULL_TABLE and not INCREMENTAL, so that has no effect",
        ),
    }
    assert not any("chunks_outstanding" in each["what"] for each in findings)
    few = check(checkout, {**env, "TAP_POSTGRES_CHUNKS_OUTSTANDING": "4"}, every=True)
    (idle,) = (each for each in few if each["what"].startswith("chunks_outstanding"))
    assert idle["level"] == "note"
    assert "is 4: the tap's 8 readers and the target's 2 loaders (max_parallel) wait for each other" in idle["what"]
    assert "with fewer than 10 chunk files" in idle["what"]


def test_the_projects_files_alone_are_checked_with_what_dbt_says_of_them(checkout):
    assert json.loads(checkout.tidemark("check", "--files", "--json")) == []
    model = checkout.root / "transform/models/broken.sql"
    model.write_text("select * from {{ ref('no_such_model') }}")
    path = checkout.root / "orchestrate/jobs.meltano.yml"
    before = path.read_text()
    path.write_text(before.replace('"@hourly"', '"@daily"'))
    try:
        done = checkout.run("tidemark", "check", "--files", "--json")
    finally:
        model.unlink()
        path.write_text(before)
    assert done.returncode == 1
    schedules, dbt = (each["what"] for each in json.loads(done.stdout))
    assert (
        schedules
        == "orchestrate/schedules.json is not what Meltano's files say: `tidemark schedules` writes it again; commit it"
    )
    assert "dbt refuses the project: " in dbt
    assert "no_such_model" in dbt
    assert "--files looks at the files of all sources" in checkout.refusal("check", "--files", "--source", "postgres")


OWN, GONE = ["alter table raw.orders owner to tidemark_loader"], ("drop table raw.orders",)


def test_a_plain_table_that_is_to_be_partitioned_gets_the_way_to_convert_it(checkout):
    asked = {"public-orders": {"by": "hash"}, "public-ordres": {"by": "hash"}}
    env = {**streams(orders="updated_at"), "TARGET_POSTGRES_RAW_PARTITIONS": json.dumps(asked)}
    table = "create table raw.orders (order_id int primary key)"
    with broken(checkout, "warehouse", table, *OWN, then=GONE):
        misspelt, plain = sorted(check(checkout, env), key=lambda finding: finding["level"])
    assert (
        "raw_partitions names public-ordres, which the source does not have; public-orders is one" in misspelt["what"]
    )
    assert (plain["level"], plain["stream"]) == ("note", "public-orders")
    assert "whose table raw.orders is there already and stays a plain one" in plain["what"]
    assert "tidemark state rewind public-orders --to beginning" in plain["what"]
    assert plain["fix"] == ['ALTER TABLE "raw"."orders" RENAME TO "orders_before";']
    # as it is once it is partitioned
    parts = [
        f"create table raw.orders_p{each} partition of raw.orders for values with (modulus 2, remainder {each})"
        for each in range(2)
    ]
    with broken(checkout, "warehouse", f"{table} partition by hash (order_id)", *parts, *OWN, then=GONE):
        three = {**env, "TARGET_POSTGRES_RAW_PARTITIONS": '{"public-orders": {"by": "hash", "count": 3}}'}
        assert "stays partitioned by hash of order_id, in 2 partitions." in only(check(checkout, three))["what"]
        assert only(check(checkout, env))["what"] == misspelt["what"]
        sized = {**env, "TARGET_POSTGRES_RAW_PARTITIONS": '{"public-orders": {"by": "hash", "count": 2, "width": 7}}'}
        unused = only(check(checkout, sized))["what"]
    assert "raw_partitions has width 7 for public-orders, which is partitioned by hash, so that has no effect" in unused
    ranges = f"{table} partition by range (order_id)"
    with broken(checkout, "warehouse", ranges, *OWN, then=GONE):
        other, _ = sorted(check(checkout, env), key=lambda finding: finding["what"])
    assert "stays partitioned by range of order_id. To partition it as the setting says" in other["what"]


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"by": "range"}, "`width` is missing, and for order_id, which is bigint, must be a whole number"),
        ({"by": "range", "width": "day"}, "`width` is day, and for order_id, which is bigint, must be a whole number"),
        ({"by": "hash", "column": "status"}, "`column` is status, and must be a column of the key: order_id"),
        ({"by": "range", "masks": "sha256"}, "order_id is text, which has no ranges here; partition it by hash"),
    ],
    ids=["no width", "another width", "another column", "a masked key"],
)
def test_partitions_that_a_run_would_refuse_are_errors_with_the_same_words(checkout, setting, why):
    masks = {"order_id": setting.pop("masks")} if "masks" in setting else {}
    env = {
        **streams(orders="updated_at"),
        "TARGET_POSTGRES_RAW_PARTITIONS": json.dumps({"public-orders": setting}),
        "TAP_POSTGRES_MASKS": json.dumps({"public-orders": masks}),
        "TAP_POSTGRES_MASK_SECRET": "a long random text",
    }
    refused, *others = sorted(check(checkout, env), key=lambda finding: finding["level"] != "error")
    assert (refused["level"], refused["what"]) == ("error", f"raw_partitions of public.orders: {why}")
    assert not [each for each in others if each["level"] == "error"]
    with broken(checkout, "warehouse", "create table raw.orders (order_id text primary key)", *OWN, then=GONE):
        # a run loads it as it is
        found = check(checkout, env)
        assert not [each for each in found if each["level"] == "error"]
        assert f"{why}. raw.orders is there already and stays as it is" in found[-1]["what"]


def test_a_key_that_is_misspelt_is_told_whatever_partitions_are_wanted(checkout):
    misspelt = {"public-orders": {"replication-method": "FULL_TABLE", "table-key-properties": ["ordr_id"]}}
    env = {
        **streams(orders="updated_at"),
        "TAP_POSTGRES__METADATA": json.dumps(misspelt),
        "TARGET_POSTGRES_RAW_PARTITIONS": '{"public-orders": {"by": "range", "width": 7}}',
    }
    found = [each for each in check(checkout, env) if each["level"] == "error"]
    assert "ordr_id" in only(found)["what"]


def test_a_part_of_a_first_load_that_a_setting_keeps_is_an_error(checkout):
    env = {**streams(orders="updated_at"), "TAP_POSTGRES_FIRST_LOAD_PART": '{"public-orders": {}}'}
    found = only(check(checkout, env))
    assert found["level"] == "error"
    assert "only `tidemark run --shard` sets it" in found["what"]
