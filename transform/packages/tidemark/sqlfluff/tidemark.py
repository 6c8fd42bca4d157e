"""What the package's macros render to for SQLFluff's jinja templater, which asks neither dbt nor a server.

In SQLFluff's settings of the templater, `library_path` is this directory. It also has what in_place's macros render to.
"""

from __future__ import annotations


def cleaned(column: str) -> str:
    """Return the text without surrounding blanks."""
    return f"nullif(trim({column}), '')"


def utc(column: str) -> str:
    """Return an instant's date and time in UTC."""
    return f"({column} at time zone 'UTC')"


def surrogate_key(column: str) -> str:
    """Return the key of a dimension's row."""
    return f"coalesce(md5({column}::text)::uuid, {unknown_key()})"


def unknown_key() -> str:
    """Return the key of the unknown member."""
    return "'00000000-0000-0000-0000-000000000000'::uuid"


def built_until(_: object) -> str:
    """Return the transaction up to which models are built."""
    return "least('1'::xid8)"


def loader_runs(_: str = "raw") -> str:
    """Return the table of the loader's runs."""
    return "_tidemark_runs"
