"""Writes docs/reference/errors.md from the classes of errors; `make reference` calls it.

python docs/generate
"""

from __future__ import annotations

from singer_postgres.core.errors import CodedError, catalogue
from tidemark import errors as _of_the_utility  # noqa: F401 - its classes are in the catalogue, too
from tidemark_airflow.alerts import codes
from tidemark_airflow.alerts.codes import AlertCode

HEAD = """# Error codes

Each error has a code that stays. It is in the `error` field of the log line of a tap or target, in the report of
`tidemark run --json`, in `error_code` of `raw._tidemark_runs`, in Airflow's alerts, and in the link to the runbook.

The exit status of a command:

- 0: it did what you asked for
- 1: any other error; or it compared, checked or proposed, and found something
- 2: the command, an option or an argument is not valid
- 69: a database can't be reached, or refuses this role
- 75: a later try may succeed: another run is in the way, or Elasticsearch does not take the lines of the log
- 78: a setting has a value that can't be used
- 128 and the number of the signal that ended it: 130 after Ctrl-C, 143 after SIGTERM

`tidemark psql` and `tidemark meltano` end with the status of the program that they start.

| code | what happened | what helps | passes by itself | runbook |
|---|---|---|---|---|
"""


def of_error(kind: type[CodedError]) -> AlertCode:
    """Return what the page says of a class of errors."""
    cause = " ".join((kind.__doc__ or "").partition("\n\n")[0].split())
    return AlertCode(kind.code, cause, kind.cure, kind.transient, kind.section)


def row(code: AlertCode) -> str:
    """Return a line of the table."""
    passes = "yes" if code.transient else "no"
    return (
        f'| <a id="{code.code}"></a>`{code.code}` | {code.cause} | {code.cure} | {passes} '
        f"| [{code.section}](../runbook.md#{code.section}) |"
    )


def page() -> str:
    """Return the page."""
    rows = sorted([*map(of_error, catalogue()), *codes.ALL], key=lambda code: (code.section, code.code))
    return HEAD + "\n".join(map(row, rows)) + "\n"
