"""Names in the warehouse are legal, unique, and the same however often and in whatever order tables are found."""

from __future__ import annotations

import random
import re

from tidemark.onboard.names import TableNames, names, raw_schema
from tidemark.onboard.source_tables import SourceColumn, SourceTable


def table(name: str, schema: str = "public") -> SourceTable:
    return SourceTable(schema, name, "r", (SourceColumn("id", "integer", "integer"),))


def models(*tables: SourceTable, **more) -> list[str]:
    found = names("crm", tables, **more).tables
    return [found[each.stream].model for each in tables]


def test_a_staging_model_has_a_legal_name_of_words():
    given = ["film", "SalesOrderHeader", "Order", "select", "we ird.name", "Straße 2", "Ünïcode", "a__b", "address2"]
    assert models(*map(table, given)) == [
        "stg_crm__film",
        "stg_crm__sales_order_header",
        "stg_crm__order",
        "stg_crm__select",
        "stg_crm__we_ird_name",
        "stg_crm__strasse2",
        "stg_crm__unicode",
        "stg_crm__a__b",
        "stg_crm__address2",
    ]


def test_names_without_letters_or_that_are_too_long_stay_legal_and_unique():
    given = ["Заказ", "注文", "x" * 60 + "a", "x" * 60 + "b", "!!"]
    found = models(*map(table, given))
    assert len(set(found)) == len(given)
    assert all(re.fullmatch(r"[a-z0-9_]{1,51}", name) for name in found)


def test_a_table_that_needs_no_change_keeps_its_name_beside_one_that_would_take_it():
    plain, mixed, loud = models(table("film"), table("Film"), table("FILM"))
    assert plain == "stg_crm__film"
    assert len({plain, mixed, loud}) == 3
    assert models(table("film")) == [plain]


def test_equal_names_in_two_schemas_get_a_pair_of_tap_and_target_each():
    found = names("crm", [table("customer", "hr"), table("customer"), table("pay", "hr"), table("o", "sales")])
    assert found.tables["public-customer"] == TableNames("stg_crm__customer", "raw_crm")
    assert found.tables["sales-o"] == TableNames("stg_crm__o", "raw_crm")
    # a schema moves as a whole, so that its tables stay together
    assert found.tables["hr-customer"] == TableNames("stg_crm_hr__customer", "raw_crm_hr", "crm_hr")
    assert found.tables["hr-pay"].pair == "crm_hr"
    assert "tap-crm_hr and target-crm_hr" in found.warnings[0]


def test_schemas_whose_names_differ_only_in_case_get_different_pairs():
    found = names("crm", [table("t"), table("t", "Sales"), table("t", "sales")])
    assert len({each.pair for each in found.tables.values()}) == 3
    assert len({each.raw_schema for each in found.tables.values()}) == 3


def test_two_tables_that_the_tap_calls_the_same_are_not_both_read():
    found = names("crm", [table("b-c", "a"), table("c", "a-b")])
    assert list(found.ambiguous) == ["a-b.c"]


def test_names_do_not_depend_on_the_order_in_which_tables_are_found():
    tables = [table(name, schema) for name in ("t", "T", "u", "Ü", "x" * 60) for schema in ("a", "A", "public", "z")]
    first = names("crm", tables)
    for seed in range(20):
        random.Random(seed).shuffle(tables)
        assert names("crm", tables) == first
    # no two tables share a place in the warehouse, and no two models a name
    places = {(first.tables[each.stream].raw_schema, each.name) for each in tables}
    assert len(places) == len({each.model for each in first.tables.values()}) == len(tables)


def test_names_that_were_given_before_stay_whatever_is_added():
    kept = dict(names("crm", [table("Film"), table("t", "hr")]).tables)
    more = [table("Film"), table("FILM"), table("film"), table("t", "hr"), table("t"), table("t", "a")]
    found = names("crm", more, kept=kept).tables
    assert {stream: found[stream] for stream in kept} == kept
    assert len({each.model for each in found.values()}) == len(more)
    assert len({(found[each.stream].raw_schema, each.name) for each in more}) == len(more)


def test_models_of_other_sources_are_not_taken():
    assert models(table("film"), taken={"stg_crm__film"}) != ["stg_crm__film"]


def test_the_first_source_loads_into_the_targets_default_schema():
    assert raw_schema("postgres") == "raw"
    assert names("postgres", [table("film")], own_raw_schema="landing").raw_schema == "landing"
    assert raw_schema("my-CRM") == "raw_my_crm"
    assert len(raw_schema("x" * 80)) <= 63
