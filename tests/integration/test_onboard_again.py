"""Onboarding again: what a person decided or edited since, and masks that come after the first load."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_onboard_whole import Strangers, strangers

if TYPE_CHECKING:
    from collections.abc import Iterator

START = """
    create table person (
        id int primary key, email text not null, phone bigint, updated_at timestamptz not null default now()
    );
    create function touch() returns trigger language plpgsql as 'begin new.updated_at := now(); return new; end';
    create trigger touch before update on person for each row execute function touch();
    insert into person select n, 'p' || n || '@example.com', 4700000000 + n, now() from generate_series(1, 50) n
"""
TAP = "extract/app.meltano.yml"
PERSON = "        - public-person.*"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strangers]:
    start = tmp_path_factory.mktemp("app") / "start.sql"
    start.write_text(START)
    with strangers() as all_:
        all_.make("app", start)
        all_.onboard("app", *all_.address("app"), "--yes", "--no-run")
        all_.checkout.tidemark("run", "tap-app", "target-app")
        yield all_


def test_masks_that_come_after_the_first_load_reach_all_rows_with_the_next_run(app):
    said = app.onboard("app", "--yes", "--no-run", "--masks")
    assert "public.person: its masks reach all rows of the source with the next run" in said
    app.checkout.tidemark("run", "tap-app", "target-app")
    plain = (
        "select count(*) filter (where email like '%@%' or phone::text like '470000%'), count(*) from raw_app.person"
    )
    assert app.checkout.rows("warehouse", plain) == [(0, 50)]
    assert "Nothing would change." in app.onboard("app", "--check")
    assert "its masks reach" not in app.onboard("app", "--yes", "--no-run")


def test_a_new_table_that_refers_to_a_masked_column_is_warned_of_until_its_masks_are_confirmed(app):
    with app.connect("app") as connection:
        connection.execute("alter table person add unique (email)")
        connection.execute("create table visit (id int primary key, who text references person (email))")
    warning = (
        "foreign key visit_who_fkey joins public-visit.who (not masked) with public-person.email (masked: sha256), so "
        "a join of both finds no row: write `public-visit: {who: sha256}` under `masks` of the tap's `config` in "
        f"{TAP}, or mask none of them"
    )
    said = app.onboard("app", "--yes", "--no-run")
    assert f"public-visit: {warning}" in said
    assert "1 mask to confirm: tidemark onboard app --masks" in said
    assert warning in app.checkout.run("tidemark", "check", "--source", "app").stdout
    assert warning not in app.onboard("app", "--yes", "--no-run", "--masks")
    assert warning not in app.checkout.run("tidemark", "check", "--source", "app").stdout


def test_a_table_that_an_edited_tap_does_not_select_gets_no_model_and_the_line_to_add(app):
    tap = app.checkout.root / TAP
    tap.write_text(f"{tap.read_text()}# mine\n")
    with app.connect("app") as connection:
        connection.execute("create table newcomer (id int primary key)")
    model = app.checkout.root / "transform/models/staging/app/stg_app__newcomer.sql"
    for _ in range(2):
        said = app.onboard("app", "--yes", "--no-run")
        (line,) = re.findall(r"public\.newcomer is not read: .*", said)
        assert f"somebody edited {TAP}, and its tap-app does not select it: add `- public-newcomer.*` there" in line
        assert not model.exists()
    # it stays new for the check
    assert "1 new table: public-newcomer" in app.checkout.tidemark("check", "--source", "app")
    tap.write_text(tap.read_text().replace(PERSON, f"        - public-newcomer.*\n{PERSON}"))
    app.onboard("app", "--yes", "--no-run")
    assert model.exists()
    # and a stream that the person takes out is no longer read
    tap.write_text(tap.read_text().replace("        - public-newcomer.*\n", ""))
    assert "its table is no longer read; --remove-gone removes it" in app.onboard("app", "--yes", "--no-run")
    app.onboard("app", "--yes", "--no-run", "--remove-gone")
    assert not model.exists()


def test_a_table_that_an_edited_list_of_sources_lacks_gets_no_model_that_dbt_would_refuse(app):
    sources = app.checkout.root / "transform/models/staging/app/_sources.yml"
    sources.write_text(f"{sources.read_text()}# mine\n")
    tap = app.checkout.root / TAP
    tap.write_text(tap.read_text().replace(PERSON, f"        - public-late.*\n{PERSON}"))
    with app.connect("app") as connection:
        connection.execute("create table late (id int primary key)")
    said = app.onboard("app", "--yes", "--no-run")
    assert "_sources.yml, and its source raw_app does not have it: add `- name: late` there" in said
    assert app.checkout.dbt("--quiet", "parse").returncode == 0
