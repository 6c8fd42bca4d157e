"""What the package's macros render to for SQLFluff's jinja templater, which asks neither dbt nor a server.

In SQLFluff's settings of the templater, set `apply_dbt_builtins`, and `library_path` to this directory.
"""

from __future__ import annotations


def is_incremental() -> bool:
    """Render a model as an incremental build does."""
    return True


def horizon() -> str:
    """Return the current model's horizon, as SQL."""
    return "'1'::xid8"


def horizon_of(_: object) -> str:
    """Return another table's horizon, without quotes."""
    return "1"


def staged_keys(_: str) -> str:
    """Return the table of the changed keys."""
    return "changed_keys as changed"


def models_table(_: object) -> str:
    """Return the table of horizons."""
    return "_tidemark_models"
