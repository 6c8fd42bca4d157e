"""What docs/how-to/tables.md says to do for a second source."""

from __future__ import annotations

import re
import shlex
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from tests.conftest import REPOSITORY
from tests.leaks import secrets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.checkout import Checkout

_PAGE = REPOSITORY / "docs/how-to/tables.md"
_EXTRACT = "extract/crm.meltano.yml"
_MODELS = {
    "staging/crm/crm.yml": """
        sources:
          - {name: our_crm, schema: raw_crm, tables: [{name: contacts}]}
        models:
          - name: stg_crm_contacts
            columns: [{name: contact_id, data_tests: [unique, not_null]}]
    """,
    "staging/crm/stg_crm_contacts.sql": "select id as contact_id, name from {{ source('our_crm', 'contacts') }}",
    "intermediate/int_contact_customers.sql": """
        select contact_id, name, (select count(*) from {{ ref('dim_customers') }}) as customers
        from {{ ref('stg_crm_contacts') }}
    """,
}
# two models of the shop's names, in place of all of its own
_FEW = {
    "sources.yml": "sources: [{name: raw, tables: [{name: customers}, {name: orders}]}]",
    "staging/dim_customers.sql": "select * from {{ source('raw', 'customers') }}",
    "staging/fct_orders.sql": "select * from {{ source('raw', 'orders') }}",
}
# the source of each model: those of the shop stand on the first one
ON_CRM, ON_BOTH = "stg_crm_contacts", "int_contact_customers"


TABLES = """
    create table contacts (id int primary key, name text, updated_at timestamptz not null);
    create index on contacts (updated_at);
    insert into contacts select n, 'contact ' || n, now() - interval '1 day' from generate_series(1, 10) n;
    create table customers (id int primary key, note text);
    insert into customers values (1, 'no updated_at here');
    grant select on all tables in schema public to tidemark_reader
"""


@contextmanager
def database(checkout: Checkout) -> Iterator[psycopg.Connection]:
    """Make the second database on the source's server, name it in variables, and connect to it as its owner."""
    url = psycopg.conninfo.conninfo_to_dict(checkout.tidemark("dsn", "source").strip())
    passwords = secrets(checkout.root)
    owner: dict[str, Any] = {**url, "user": "tidemark", "password": passwords["TIDEMARK_ADMIN_PASSWORD"]}
    # the page's host is an example
    checkout.env |= {
        "TAP_CRM_HOST": str(url["host"]),
        "TAP_CRM_PORT": str(url["port"]),
        "TAP_CRM_PASSWORD": passwords["TAP_POSTGRES_PASSWORD"],
    }
    with psycopg.connect(**owner, autocommit=True) as connection:
        connection.execute("create database crm")
    with psycopg.connect(**{**owner, "dbname": "crm"}, autocommit=True) as connection:
        connection.execute(TABLES)
        yield connection


def command() -> list[str]:
    """Return the arguments of the page's command after `tidemark`."""
    (found,) = re.findall(r"^    \.venv/bin/tidemark (source add .*)$", _PAGE.read_text(), re.MULTILINE)
    return shlex.split(found)


def select_streams(root: Path) -> None:
    """Write the page's streams into the file of the tap, which must be as the page shows it."""
    blocks = re.findall(r"(?:^    .*\n)+", _PAGE.read_text(), re.MULTILINE)
    (shown,) = (textwrap.dedent(block) for block in blocks if "inherit_from" in block)
    (streams,) = (
        textwrap.indent(textwrap.dedent(block), " " * 6) for block in blocks if "[public-contacts.*]" in block
    )
    text = (root / _EXTRACT).read_text()
    assert text.endswith(shown), text
    select, _, metadata = streams.partition("\n")
    text = text.replace("      select: []", select).replace("      metadata: {}\n", metadata)
    (root / _EXTRACT).write_text(text)


def add_models(root: Path, *, few: bool = False) -> None:
    """Write models on the second source alone, and on both; `few` for a project without those of the shop."""
    models = root / "transform" / "models"
    for name, text in {**_MODELS, **(_FEW if few else {})}.items():
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        (models / name).write_text(textwrap.dedent(text))
