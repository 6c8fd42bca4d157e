"""How onboarding judges a source's tables: method, columns, personal data."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tidemark.errors import UsageError
from tidemark.inspect.column_names import is_business_date, looks_like_modification
from tidemark.inspect.foreign_keys import ForeignKey
from tidemark.onboard import cost, edit, personal_data, sql_files
from tidemark.onboard.catalog import SourceCatalog
from tidemark.onboard.methods import Answers
from tidemark.onboard.proposal import Method, Proposal
from tidemark.onboard.rules import Facts, Wanted, propose, whole
from tidemark.onboard.source_tables import SourceColumn, SourceTable
from tidemark.onboard.zones import hint

LARGE = cost.CHEAP_BYTES + 1
ZONED, LOCAL = "timestamp with time zone", "timestamp without time zone"


def column(name: str, type_: str = "integer", **more) -> SourceColumn:
    return SourceColumn(name, type_, type_, **{"warehouse_type": type_, **more})


ID = column("id", not_null=True)
STAMP = column("updated_at", ZONED, not_null=True, default="now()")


def table(*columns: SourceColumn, name: str = "t", **more) -> SourceTable:
    facts = {"key": ("id",), "has_primary_key": True, "rows": 10, "bytes": 8192, "indexed": frozenset({"id"})} | more
    return SourceTable(facts.pop("schema", "public"), name, facts.pop("kind", "r"), (ID, *columns), **facts)


def proposed(*tables: SourceTable, source: str = "crm", **answers) -> Proposal:
    """Return the proposal for tables."""
    patterns = answers.pop("patterns", ())
    catalog = SourceCatalog(tables, (), "me", has_log=answers.pop("has_log", False))
    return propose(Facts(catalog), Wanted(source, patterns, Answers(**answers)))


def only(*tables: SourceTable, **answers):
    return proposed(*tables, **answers).tables[0]


def test_a_column_that_a_trigger_keeps_is_the_replication_key():
    each = only(table(STAMP, kept_by_trigger={"updated_at": "touch"}))
    assert (each.method, each.replication_key, each.question) == (Method.incremental, "updated_at", None)
    assert each.reason == "updated_at is NOT NULL, and trigger touch sets it at each update"


def test_a_large_table_without_a_replication_key_is_offered_to_follow_the_log_where_the_source_writes_one():
    offer = "LOG_BASED would read only its changes, deletes too (--log-based public.t)"
    large = table(bytes=LARGE)
    assert any(offer in warning for warning in only(large, has_log=True).warnings)
    for one, has_log in (
        (large, False),
        (table(), True),
        (table(bytes=LARGE, has_primary_key=False), True),
        (table(STAMP, bytes=LARGE, kept_by_trigger={"updated_at": "touch"}), True),
    ):
        assert not any("LOG_BASED" in warning for warning in only(one, has_log=has_log).warnings)
    chosen = only(large, log_based=frozenset({"t"}))
    assert (chosen.method, chosen.reason) == (Method.log_based, "following the log was chosen explicitly")
    assert edit.change(proposed(large), "t", Method.log_based).tables[0].method is Method.log_based
    with pytest.raises(UsageError, match=r"public\.t has no primary key, which identifies rows in the log"):
        only(table(has_primary_key=False), log_based=frozenset({"t"}))


NO_PROOF = {
    "default only": (table(STAMP), "default only: does the application set it"),
    "no default": (table(replace(STAMP, default=None)), "does the application set updated_at"),
    "nullable": (
        table(replace(STAMP, not_null=False), kept_by_trigger={"updated_at": "touch"}),
        "Rows without a value are read again",
    ),
    "doubtful": (
        table(STAMP, doubtful_triggers={"updated_at": "trigger touch sets it only under …"}),
        "whenever a row",
    ),
}


@pytest.mark.parametrize(("one", "question"), NO_PROOF.values(), ids=NO_PROOF)
@pytest.mark.parametrize("size", [8192, LARGE], ids=["small", "large"])
def test_without_proof_a_table_is_read_whole_until_a_person_says_yes(one, question, size):
    one = replace(one, bytes=size)
    each = only(one)
    assert each.method is Method.full_table
    assert each.question
    assert question in each.question.text
    # a large one's cost is said beside the question
    assert any("each run reads all of it" in warning for warning in each.warnings) is (size == LARGE)
    answered = edit.answer(proposed(one), {one.stream}, yes=True).tables[0]
    assert (answered.method, answered.replication_key, answered.question) == (Method.incremental, "updated_at", None)
    trusted = only(one, trust_defaults=True)
    assert (trusted.method, trusted.replication_key) == (Method.incremental, "updated_at")
    refused = edit.answer(proposed(one), {one.stream}, yes=False).tables[0]
    assert (refused.method, refused.question) == (Method.full_table, None)


NAMES = (
    "updated_at modified last_update changed_at mtime ModifiedDate lastModified date_modified row_updated_on write_date"
)
BUSINESS = "order_date due_date birth_date start_date end_time valid_from payment_date shipped_at hire_date created_at"
NEITHER = "price_changed_at password_updated_at status_change logged_at rental_rate update_count_at_site"


def test_only_names_of_modification_stamps_are_considered():
    assert [name for name in NAMES.split() if not looks_like_modification(name)] == []
    assert [name for name in (*BUSINESS.split(), *NEITHER.split()) if looks_like_modification(name)] == []
    assert [name for name in BUSINESS.split() if not is_business_date(name)] == []


def test_a_business_date_or_a_part_of_the_key_is_never_proposed():
    dates = [column(name, ZONED, not_null=True, default="now()") for name in BUSINESS.split()]
    each = only(table(*dates, kept_by_trigger=dict.fromkeys(BUSINESS.split(), "touch")), trust_defaults=True)
    assert (each.method, each.question) == (Method.full_table, None)
    in_key = table(STAMP, key=("id", "updated_at"), kept_by_trigger={"updated_at": "touch"})
    assert only(in_key).method is Method.full_table


LEFT_OUT = {
    "a view": (table(kind="v", key=()), "a view"),
    "a materialized view": (table(kind="m", key=()), "a materialized view"),
    "a foreign table": (table(kind="f", key=()), "another server"),
    "no rights": (table(readable=False), "me may not read it"),
    "no schema": (table(readable=False, schema_usable=False), "me may not use schema public"),
    "a closed key": (replace(table(), columns=(replace(ID, readable=False), STAMP)), "its key (id)"),
    "row security": (table(hides_rows=True), "would look complete"),
    "our name": (table(name="_tidemark_state"), "reserved"),
    "our column as key": (
        replace(table(), columns=(column("_sdc_sequence"),), key=("_sdc_sequence",)),
        "can't be loaded",
    ),
}


@pytest.mark.parametrize(("one", "reason"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_can_not_or_need_not_be_read_is_left_out_with_the_reason(one, reason):
    each = only(one)
    assert each.method is Method.left_out
    assert reason in each.reason


def test_a_view_that_is_named_exactly_is_read():
    views = (table(kind="v", key=(), name="v"), table(kind="v", key=(), name="w"))
    found = proposed(*views, patterns=("public.v", "w*"))
    assert [each.method for each in found.tables] == [Method.full_table, Method.left_out]


def test_a_table_without_a_key_is_read_whole_and_what_that_costs_is_said():
    each = only(table(STAMP, key=(), unique=(("updated_at",),), kept_by_trigger={"updated_at": "touch"}))
    assert each.method is Method.full_table
    assert "incremental models and snapshots can't be built on it" in each.warnings[0]


def test_an_insert_only_number_is_a_replication_key_only_by_an_explicit_choice():
    log = replace(table(bytes=LARGE), columns=(replace(ID, is_identity=True),))
    assert only(log).method is Method.full_table
    assert only(log, trust_defaults=True).method is Method.full_table
    assert only(log, incremental={"public.t": "id"}).replication_key == "id"
    with pytest.raises(UsageError, match="no column nr"):
        only(log, incremental={"t": "nr"})


def test_the_zone_of_a_stamp_without_one_is_taken_only_where_trigger_and_default_name_it():
    local = column("updated_at", LOCAL, not_null=True, default="timezone('utc'::text, now())")
    kept = {"kept_by_trigger": {"updated_at": "touch"}, "stamp_zones": {"updated_at": "utc"}}
    known = proposed(table(local, **kept))
    assert known.timestamp_timezone == "UTC"
    unknown = proposed(table(replace(local, default="now()"), **kept))
    assert unknown.timestamp_timezone is None
    assert any("set timestamp_timezone" in warning for warning in unknown.warnings)


def test_the_data_suggests_a_zone_only_if_it_can_tell():
    assert hint({"UTC": 7300.0, "Europe/Oslo": 100.0}, "Europe/Oslo").zone == "Europe/Oslo"
    assert hint({"UTC": 10.0}, "UTC").zone == "UTC"
    assert hint({"UTC": -7000.0}, "UTC").zone is None
    assert not hint({"UTC": 1e6, "Europe/Oslo": 1e6}, "Europe/Oslo").tells
    assert not hint({}, "UTC").tells


def test_columns_that_can_not_land_or_are_derived_are_left_out_and_heavy_ones_are_offered():
    each = only(
        table(
            column("search", "tsvector"),
            column("shut", "text", readable=False),
            column("_sdc_sequence"),
            column("plan", "pg_node_tree", warehouse_type=None),
            column("total", is_generated=True),
            column("scan", "bytea"),
            column("mood", "public.mood", kind="e", warehouse_type="text", instead_of="enum mood"),
            column("doc", "xml"),
        )
    )
    assert list(each.left_out_columns) == ["search", "shut", "_sdc_sequence", "plan"]
    assert list(each.offered_columns) == ["total", "scan"]
    assert any("mood (enum mood) as text" in warning for warning in each.warnings)
    assert any(warning.startswith("xml becomes text") for warning in each.warnings)


PERSONAL = """
    email EmailAddress e_mail customer_email phone phone_number mobil telefon home_phone iban ssn
    nationalidnumber first_name LastName surname vorname nachname prenom apellidos fornavn cognome full_name
    contact_name birth_date dob geburtsdatum fecha_nacimiento password passwordhash api_token ip ip_address
    client_ip username address addressline1 street strasse credit_card_number passport_number
"""
IMPERSONAL = """
    rental_rate name city country email_template_id email_template email_verified_at phone_model address_id
    address_type product_name category ip_range description title status last_login zip ship_date shipment
    tax_rate account_id mailing file_name table_name host_name event_name web_address memory_address step_in
    first last staff_id sex_offer token_count boarding_pass sent_via
"""


def test_personal_data_is_found_by_name_and_things_are_not():
    def hits(names: str) -> set[str]:
        columns = [column(name, "text") for name in names.split()]
        return {mask.column for mask in personal_data.find(table(*columns, name="items"))}

    assert hits(PERSONAL) == set(PERSONAL.split())
    assert hits(IMPERSONAL) == set()


def test_a_name_is_personal_only_in_a_table_of_persons():
    name = column("name", "text")
    for persons in ("users", "Customer", "app_user", "people"):
        assert [mask.column for mask in personal_data.find(table(name, name=persons))] == ["name"], persons
    for things in ("products", "customer_type", "user_group"):
        assert personal_data.find(table(name, name=things)) == (), things


def test_personal_data_is_found_by_type_and_by_the_shape_of_a_sample():
    one = table(column("seen_from", "inet"), column("a", "text"), column("b", "text"))
    found = personal_data.find(one, (), {"a": {"email": 0.9}, "b": {"email": 0.4}})
    assert [(mask.column, mask.mask) for mask in found] == [("seen_from", "sha256"), ("a", "sha256")]


def test_both_sides_of_a_masked_foreign_key_are_masked_alike_from_table_to_table():
    people = replace(table(name="person"), columns=(column("email", "text", not_null=True),), key=("email",))
    link = ForeignKey("f", ("who",), "public", "person", ("email",))
    order = table(column("who", "text"), name="orders", foreign_keys=(link,))
    again = ForeignKey("g", ("buyer",), "public", "orders", ("who",))
    line = table(column("buyer", "text"), name="lines", foreign_keys=(again,))
    found = proposed(line, order, people)
    masks = {(each.table.name, mask.column): mask.mask for each in found.tables for mask in each.masks}
    assert masks == {("lines", "buyer"): "sha256", ("orders", "who"): "sha256", ("person", "email"): "sha256"}
    assert not any(each.masks_confirmed for each in found.tables)
    with pytest.raises(UsageError, match="confirm the masks of both"):
        edit.confirm_masks(found, {people.stream})
    assert all(each.masks_confirmed for each in edit.confirm_masks(found).tables)


def test_a_foreign_key_that_is_masked_on_one_side_is_a_warning_until_both_are():
    people = replace(table(name="person"), columns=(column("email", "text", not_null=True),), key=("email",))
    order = table(
        column("who", "text"), name="orders", foreign_keys=(ForeignKey("f", ("who",), "public", "person", ("email",)),)
    )
    found = proposed(order, people)
    assert found.warnings == ()
    # as a person wrote it, or as it was when the table of orders was not there yet
    by_hand = whole(replace(found, file_masks={people.stream: {"email": "sha256"}}))
    (warning,) = by_hand.warnings
    assert "public-orders.who (not masked) with public-person.email (masked: sha256)" in warning
    assert (
        "write `public-orders: {who: sha256}` under `masks` of the tap's `config` in extract/crm.meltano.yml" in warning
    )
    assert edit.confirm_masks(by_hand).warnings == ()
    edited = edit.confirm_masks(replace(by_hand, tap_is_edited=True))
    assert edited.warnings == (warning,), "confirmed masks don't get into a file that somebody edited"


def test_a_mask_never_makes_rows_of_a_key_equal():
    one = replace(table(name="t"), columns=(column("birth_date", "date"), column("dob", "date")), key=("birth_date",))
    assert {mask.column: mask.mask for mask in personal_data.find(one)} == {"birth_date": "sha256", "dob": "null"}


def test_the_sql_files_name_large_tables_first_and_leave_out_small_ones():
    kept = {"kept_by_trigger": {"updated_at": "touch"}}
    found = proposed(
        table(STAMP, name="small", **kept),
        table(STAMP, name="big", bytes=LARGE, **kept),
        table(STAMP, name='the "biggest"', bytes=9 * LARGE, **kept),
        replace(table(name="shut", schema="vault", schema_usable=False), columns=(replace(ID, readable=False),)),
    )
    statements = [line for line in sql_files.missing_indexes(found).splitlines() if not line.startswith("--")]
    assert list(filter(None, statements)) == [
        'CREATE INDEX CONCURRENTLY ON "public"."the ""biggest""" ("updated_at");',
        'CREATE INDEX CONCURRENTLY ON "public"."big" ("updated_at");',
    ]
    assert "Left out: 1 table of 64 MiB or less" in sql_files.missing_indexes(found)
    assert (
        'GRANT USAGE ON SCHEMA "vault" TO "me";\nGRANT SELECT ON "vault"."shut" TO "me";'
        in sql_files.missing_grants(found)
    )


def test_a_table_that_can_not_be_read_stays_left_out_whatever_is_chosen():
    found = proposed(table(readable=False))
    with pytest.raises(UsageError, match="can't be read"):
        edit.change(found, "t", Method.full_table)


def test_leaving_out_and_changing_tables_keeps_their_names():
    found = proposed(table(STAMP, name="a"), table(name="b"))
    without = edit.leave_out(found, "a")
    assert [each.method for each in without.tables] == [Method.left_out, Method.full_table]
    back = edit.change(without, "public.a", Method.incremental, "updated_at")
    assert (back.tables[0].method, back.tables[0].model) == (Method.incremental, "stg_crm__a")
    with pytest.raises(UsageError, match="no column nothing"):
        edit.change(found, "b", Method.incremental, "nothing")
