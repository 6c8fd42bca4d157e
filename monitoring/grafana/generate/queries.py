"""Data sources and queries. The provisioning gives the data sources these uids."""

from __future__ import annotations

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import AnnotationQuery, AnnotationTarget, DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

_SQL = "grafana-postgresql-datasource"
PROMETHEUS = DataSourceRef("prometheus", "tidemark-prometheus")
# the warehouse, for a member of tidemark_monitor and for one of tidemark_reporter
RUN_RECORDS = DataSourceRef(_SQL, "tidemark-run-records")
MARTS = DataSourceRef(_SQL, "tidemark-marts")


def over_time(expr: str, legend: str = "", ref: str = "A") -> prometheus.Dataquery:
    """Return a query for the panel's whole time range."""
    query = prometheus.Dataquery().expr(expr).range().legend_format(legend or "__auto")
    return query.ref_id(ref).datasource(PROMETHEUS)


def now(expr: str, legend: str = "", ref: str = "A") -> prometheus.Dataquery:
    """Return a query for the latest values."""
    query = prometheus.Dataquery().expr(expr).instant().legend_format(legend or "__auto")
    return query.ref_id(ref).datasource(PROMETHEUS)


def rows(expr: str, ref: str = "A") -> prometheus.Dataquery:
    """Return a query for the latest values, with a column for each label."""
    return now(expr, ref=ref).format(PromQueryFormat.TABLE)


class SqlQuery(Dataquery):
    """A query of Grafana's PostgreSQL data source, for which the SDK has no type."""

    def __init__(self, datasource: DataSourceRef, sql: str, *, series: bool = False, ref: str = "A") -> None:
        """Take SQL. With `series`, its column `time` is a time axis and a text column names the series."""
        self._json: dict[str, object] = {
            "refId": ref,
            "datasource": datasource,
            "format": "time_series" if series else "table",
            "editorMode": "code",
            "rawQuery": True,
            "rawSql": _lines(sql),
        }

    def to_json(self) -> dict[str, object]:
        """Return it as Grafana saves it."""
        return self._json


class Sql(Builder[Dataquery]):
    """Builds a `SqlQuery`."""

    def __init__(self, datasource: DataSourceRef, sql: str, *, series: bool = False, ref: str = "A") -> None:
        """Take the same as `SqlQuery`."""
        self._query = SqlQuery(datasource, sql, series=series, ref=ref)

    def build(self) -> Dataquery:
        """Return the query."""
        return self._query


class _SqlAnnotationTarget(AnnotationTarget):
    """The SDK only has the target of Grafana's own annotations."""

    def __init__(self, datasource: DataSourceRef, sql: str) -> None:
        super().__init__()
        self._query = SqlQuery(datasource, sql, ref="Anno")

    def to_json(self) -> dict[str, object]:
        return self._query.to_json()


class SqlAnnotation(Builder[AnnotationQuery]):
    """Marks on all panels with a time axis: rows of SQL with the columns `time`, `text` and `tags`."""

    def __init__(self, name: str, datasource: DataSourceRef, sql: str, color: str) -> None:
        """Take the name of the switch that shows or hides the marks."""
        target = _SqlAnnotationTarget(datasource, sql)
        self._query = AnnotationQuery(name=name, datasource=datasource, icon_color=color, target=target)

    def build(self) -> AnnotationQuery:
        """Return the annotation."""
        return self._query


def _lines(sql: str) -> str:
    """Return SQL without the indentation of the Python around it."""
    lines = sql.strip("\n").rstrip().splitlines()
    margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[margin:] for line in lines)
