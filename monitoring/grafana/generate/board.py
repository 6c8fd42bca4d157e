"""The frame of a dashboard: its rows, its variables, and its links to the other dashboards, Airflow and the runbook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableHide,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from monitoring.grafana.generate.queries import PROMETHEUS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import AnnotationQuery, Dashboard, DataSourceRef, Panel, VariableModel

_TAG = "tidemark"
OVERVIEW, STREAMS, MODELS, DATABASES, SHOP = (
    f"tidemark-{name}" for name in ("overview", "streams", "models", "databases", "shop")
)
# the addresses of this installation, which the exporter knows; dashboards in files can't read the environment
AIRFLOW_URL, RUNBOOK_URL = "${airflow_url}", "${runbook_url}"
# the source and the stream of the row that was clicked, and the time range on show
STREAM_OF_ROW = (
    f"/d/{STREAMS}?var-source=${{__data.fields.source}}&var-stream=${{__data.fields.stream}}&${{__url_time_range}}"
)
ALERT_OF_ROW = f"{RUNBOOK_URL}#${{__value.raw}}"


def runbook(section: str) -> str:
    """Return the address of a section of the runbook."""
    return f"{RUNBOOK_URL}#{section}"


def labels(name: str, metric: str, label: str) -> dashboard.QueryVariable:
    """Return a variable with the values of a label in Prometheus."""
    query: dict[str, object] = {
        "qryType": 1,
        "query": f"label_values({metric}, {label})",
        "refId": "PrometheusVariableQueryEditor-VariableQuery",
    }
    variable = dashboard.QueryVariable(name).datasource(PROMETHEUS).query(query)
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)


def column(name: str, source: DataSourceRef, sql: str) -> dashboard.QueryVariable:
    """Return a variable with the values of a query's only column, in its order."""
    variable = dashboard.QueryVariable(name).datasource(source).query(sql)
    return variable.refresh(VariableRefresh.ON_DASHBOARD_LOAD)


def several(variable: dashboard.QueryVariable) -> dashboard.QueryVariable:
    """Let it have several values at once. At first it has all, also those that appear later."""
    everything = VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.multi(multi=True).include_all(include_all=True).current(everything)


def hidden(name: str, metric: str, label: str) -> dashboard.QueryVariable:
    """Return a variable that nobody chooses: it follows from others."""
    return labels(name, metric, label).hide(VariableHide.HIDE_VARIABLE)


def _address(name: str) -> dashboard.QueryVariable:
    return hidden(name, "tidemark_links_info", name).refresh(VariableRefresh.ON_DASHBOARD_LOAD)


def board(
    uid: str,
    title: str,
    about: str,
    rows: Iterable[tuple[str, list[Builder[Panel]]]],
    *,
    variables: Iterable[Builder[VariableModel]] = (),
    marks: Iterable[Builder[AnnotationQuery]] = (),
    since: str = "now-24h",
    refresh: str = "1m",
    timezone: str = "browser",
) -> Dashboard:
    """Return a dashboard with numbered panels.

    Args:
        rows: headings with their panels, from left to right and from top to bottom. A row without a heading has "".
    """
    frame = dashboard.Dashboard(title).uid(uid).description(about).tags([_TAG]).timezone(timezone)
    frame = frame.time(since, "now").refresh(refresh).tooltip(DashboardCursorSync.CROSSHAIR).readonly()
    others = dashboard.DashboardLink("Tidemark").type(DashboardLinkType.DASHBOARDS).tags([_TAG])
    frame = frame.link(others.keep_time(keep_time=True))
    for name, url, icon in (("Airflow", AIRFLOW_URL, "external link"), ("Runbook", RUNBOOK_URL, "doc")):
        link = dashboard.DashboardLink(name).type(DashboardLinkType.LINK).url(url).icon(icon)
        frame = frame.link(link.target_blank(target_blank=True))
    for variable in (*variables, _address("airflow_url"), _address("runbook_url")):
        frame = frame.with_variable(variable)
    for mark in marks:
        frame = frame.annotation(mark)
    for heading, panels in rows:
        if heading:
            frame = frame.with_row(dashboard.Row(heading))
        for panel in panels:
            frame = frame.with_panel(panel)
    built = frame.build()
    for number, made in enumerate(built.panels or [], start=1):
        made.id_val = number
    return built
