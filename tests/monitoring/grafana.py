"""A dashboard as Grafana runs it: the queries of panels, variables and annotations, filled in.

Formats of variables, and macros of SQL, are those of Grafana 11.6: public/app/features/templating and
pkg/tsdb/grafana-postgresql-datasource/macros.go.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

_DIRECTORIES = ("monitoring/grafana/dashboards", "demo/shop/dashboards")
FILES = sorted(path for directory in _DIRECTORIES for path in (REPOSITORY / directory).glob("*.json"))
PROMETHEUS, RUN_RECORDS, MARTS = (f"tidemark-{name}" for name in ("prometheus", "run-records", "marts"))
# a name without a format ends at the first character that can't belong to it
_VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(\w+)")
# an argument ends at the first bracket, even if another bracket was opened in it
_MACRO = re.compile(r"\$(\w+)\(([^)]*)\)")
Value = str | list[str]


@dataclass(frozen=True)
class Query:
    """One query and where it stands."""

    panel: dict[str, Any]
    target: dict[str, Any]

    @property
    def datasource(self) -> str:
        uid: str = self.target["datasource"]["uid"]
        return uid

    @property
    def name(self) -> str:
        return f"{self.panel['title']} ({self.target['refId']})"

    @property
    def range(self) -> bool:
        """Whether it runs over the panel's time range, not only for its end."""
        return bool(self.target.get("range"))

    @property
    def series(self) -> bool:
        """Whether it is SQL with a time axis."""
        return self.target.get("format") == "time_series"


@dataclass
class Board:
    """A dashboard.

    Attributes:
        values: what is selected of each variable. A list is a variable with several values.
    """

    saved: dict[str, Any]
    values: dict[str, Value] = field(default_factory=dict)

    @classmethod
    def read(cls, name: str) -> Board:
        (path,) = (path for path in FILES if path.stem == name)
        return cls(json.loads(path.read_text()))

    def variables(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.saved["templating"]["list"]
        return found

    def queries(self, *datasources: str) -> Iterator[Query]:
        """Yield the queries of its panels."""
        for panel in self.saved["panels"]:
            for target in panel.get("targets", []):
                query = Query(panel, target)
                if query.datasource in datasources:
                    yield query

    def marks(self) -> Iterator[Query]:
        """Yield the queries of its annotations."""
        for mark in self.saved["annotations"].get("list", []):
            yield Query({"title": mark["name"]}, mark["target"])

    def sql(self, query: str, begin: datetime, end: datetime) -> str:
        """Return SQL with its variables and macros filled in."""

        def macro(found: re.Match[str]) -> str:
            name, argument = found[1], found[2].partition(",")[0].strip()
            times = {"__timeFrom": f"'{begin.isoformat()}'", "__timeTo": f"'{end.isoformat()}'"}
            if name == "__timeFilter":
                return f"{argument} BETWEEN {times['__timeFrom']} AND {times['__timeTo']}"
            return times[name]

        return _MACRO.sub(macro, self._filled(query, needs_format=True))

    def promql(self, query: str, rate_interval: str) -> str:
        """Return PromQL with its variables filled in."""
        return self._filled(query.replace("$__rate_interval", rate_interval), needs_format=False)

    def _filled(self, query: str, *, needs_format: bool) -> str:
        def value(found: re.Match[str]) -> str:
            name, form = found[1] or found[3], found[2]
            # an unknown name stays, as in the $1 of a label_replace and in macros
            if name not in self.values:
                return found[0]
            assert bool(form) == needs_format, query
            return _formatted(self.values[name], form)

        return _VARIABLE.sub(value, query)


def _formatted(value: Value, form: str | None) -> str:
    values = value if isinstance(value, list) else [value]
    if form == "sqlstring":
        return ",".join("'{}'".format(each.replace("'", "''")) for each in values)
    if form == "doublequote":
        return ",".join('"{}"'.format(each.replace('"', '\\"')) for each in values)
    assert form is None, form
    # in PromQL, where several values are a regular expression
    return value if isinstance(value, str) else f"({'|'.join(re.escape(each) for each in values)})"
