"""What `tidemark slots create` refuses before it changes anything, because the application could no longer write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

# what makes UPDATE fail in the source once the table is published, and since which version
TABLES = {
    "keyless": ("create table unfit (id int)", "has no primary key", 15),
    "nothing": (
        "create table unfit (id int primary key); alter table unfit replica identity nothing",
        "identifies rows of public.unfit by nothing",
        15,
    ),
    "dropped index": (
        (
            "create table unfit (id int primary key, code int not null unique);"
            "alter table unfit replica identity using index unfit_code_key; alter table unfit drop constraint "
            "unfit_code_key"
        ),
        "identifies rows of public.unfit by nothing",
        15,
    ),
    "generated": (
        (
            "create table unfit (id int primary key, a int, g int generated always as (a * 2) stored);"
            "alter table unfit replica identity full"
        ),
        "lacks its generated column g",
        18,
    ),
}


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    for checkout in make_checkout(stage="up"):
        definition = checkout.root / "extract" / "extractors.meltano.yml"
        text = definition.read_text().replace("- public-customers.*", "- public-unfit.*")
        metadata = "metadata:\n        public-unfit: {replication-method: LOG_BASED}"
        definition.write_text(text.replace("metadata:", metadata, 1))
        yield checkout


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_the_application_could_not_update_any_more_is_refused_before_it_is_published(project, case):
    statements, why, since = TABLES[case]
    with project.connect("source") as connection:
        if connection.info.server_version < since * 1_00_00:
            pytest.skip(f"from PostgreSQL {since} on")
        connection.execute("drop table if exists unfit")
        connection.execute(statements.encode())
        assert why in project.refusal("slots", "create")
        assert connection.execute("select count(*) from pg_publication").fetchone() == (0,)
        assert connection.execute("select count(*) from pg_file_settings where name = 'wal_level'").fetchone() == (0,)
        # so it still can
        connection.execute("update unfit set id = 2")
