"""Writes docs/reference/errors.md from the classes of errors; `make reference` calls it.

python docs/generate
"""

from __future__ import annotations

from singer_postgres.core.errors import CodedError, catalogue
from tidemark import errors as _of_the_utility  # noqa: F401 - its classes are in the catalogue, too

HEAD = """# Error codes

Each error has a code that stays. It is in the `error` field of the log line of a tap or target, in the report of
`tidemark run --json`, in `error_code` of `raw._tidemark_runs`, in Airflow's alerts, and in the link to the runbook.

| code | what happened | what helps | passes by itself | runbook |
|---|---|---|---|---|
"""


def row(kind: type[CodedError]) -> str:
    """Return a line of the table."""
    cause = " ".join((kind.__doc__ or "").partition("\n\n")[0].split())
    passes = "yes" if kind.transient else "no"
    return (
        f'| <a id="{kind.code}"></a>`{kind.code}` | {cause} | {kind.cure} | {passes} '
        f"| [{kind.section}](../runbook.md#{kind.section}) |"
    )


def page() -> str:
    """Return the page."""
    kinds = sorted(catalogue(), key=lambda kind: (kind.section, kind.code))
    return HEAD + "\n".join(map(row, kinds)) + "\n"
