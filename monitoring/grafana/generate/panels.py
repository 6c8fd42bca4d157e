"""Panels in the forms that all dashboards share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphDrawStyle,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
    SortOrder,
    StackingMode,
    TableCellDisplayMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardSpecialValueMapOptions,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    SpecialValueMap,
    SpecialValueMatch,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.cog.variants import Dataquery
    from grafana_foundation_sdk.models.dashboard import DataSourceRef

    Query = Builder[Dataquery]
    Steps = tuple[tuple[float | None, str], ...]

# a color says one thing everywhere: red and orange are the severities critical and warning of an alert
GOOD, BUSY, WARNING, BAD, NEUTRAL = "green", "blue", "orange", "red", "#808080"
# as `outcome` in _tidemark_runs, and its number in expressions
OUTCOMES = {1: ("succeeded", GOOD), 2: ("running", BUSY), 3: ("failed", BAD), 4: ("killed", "dark-red")}
_PLAIN: Steps = ((None, "text"),)


def limits(*above: tuple[float, str]) -> Steps:
    """Return steps: green, then each color from its value on."""
    return ((None, GOOD), *above)


def words(values: Mapping[int, tuple[str, str]]) -> list[Any]:
    """Return mappings from numbers to words and their colors."""
    return [
        ValueMap({str(number): ValueMappingResult(text=text, color=color) for number, (text, color) in values.items()})
    ]


def thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    """Return them as Grafana's."""
    found = [Threshold(value=value, color=color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(found)


def tile(
    title: str,
    query: Query,
    source: DataSourceRef,
    *,
    about: str,
    unit: str = "none",
    steps: Steps = _PLAIN,
    mapped: Mapping[int, tuple[str, str]] | None = None,
    none: str = "No data",
    missing: str = NEUTRAL,
    span: int = 4,
    height: int = 4,
    decimals: int | None = None,
    link: str = "",
) -> stat.Panel:
    """Return one big value. Its background has the color of its threshold or word.

    Args:
        mapped: words for its numbers.
        none: what it says without a value, in the color `missing`.
    """
    colored = steps != _PLAIN or mapped
    panel = stat.Panel().title(title).description(about).datasource(source).span(span).height(height)
    panel = panel.with_target(query).unit(unit).thresholds(thresholds(steps)).no_value(none)
    panel = panel.color_mode(BigValueColorMode.BACKGROUND_SOLID if colored else BigValueColorMode.VALUE)
    panel = panel.graph_mode(BigValueGraphMode.NONE).text_mode(BigValueTextMode.VALUE)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    # without this, Grafana gives a missing value the color of the lowest threshold, which is that of health
    result = ValueMappingResult(text=none, color=missing if colored else "text")
    without = SpecialValueMap(DashboardSpecialValueMapOptions(match=SpecialValueMatch.NULL_AND_NAN, result=result))
    panel = panel.mappings([*(words(mapped) if mapped else []), without])
    if decimals is not None:
        panel = panel.decimals(decimals)
    if link:
        panel = panel.data_links([dashboard.DashboardLink(title).url(link)])
    return panel


def graph(
    title: str,
    queries: list[Query],
    source: DataSourceRef,
    *,
    about: str,
    unit: str,
    none: str = "No data in this time range",
    span: int = 12,
    height: int = 8,
    steps: Steps = (),
    bars: bool = False,
    stairs: bool = False,
    stacked: bool = False,
    table_legend: bool = False,
    maximum: float | None = None,
) -> timeseries.Panel:
    """Return values over time. Steps are drawn as lines."""
    panel = timeseries.Panel().title(title).description(about).datasource(source).span(span).height(height)
    panel = panel.targets(queries).unit(unit).no_value(none).min(0).fill_opacity(80 if bars else 10)
    panel = panel.draw_style(GraphDrawStyle.BARS if bars else GraphDrawStyle.LINE).show_points(
        VisibilityMode.NEVER if bars else VisibilityMode.AUTO
    )
    panel = panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    legend = common.VizLegendOptions().show_legend(show_legend=True).placement(LegendPlacement.BOTTOM)
    legend = legend.display_mode(LegendDisplayMode.TABLE if table_legend else LegendDisplayMode.LIST)
    panel = panel.legend(legend.calcs(["lastNotNull", "max"] if table_legend else []))
    panel = panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    if stairs:
        # a value that holds until the next run
        panel = panel.line_interpolation(LineInterpolation.STEP_AFTER)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if steps:
        panel = panel.thresholds(thresholds(((None, "transparent"), *steps)))
        panel = panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    if maximum is not None:
        panel = panel.max(maximum)
    return panel


def states(
    title: str,
    query: Query,
    source: DataSourceRef,
    mapped: Mapping[int, tuple[str, str]],
    *,
    about: str,
    none: str = "No data in this time range",
    span: int = 12,
    height: int = 8,
) -> statetimeline.Panel:
    """Return a line of colored stretches for each series: what it was, and since when."""
    panel = statetimeline.Panel().title(title).description(about).datasource(source).span(span).height(height)
    panel = panel.with_target(query).mappings(words(mapped)).no_value(none).show_value(VisibilityMode.NEVER)
    panel = panel.merge_values(merge_values=True).row_height(0.8).fill_opacity(80)
    panel = panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS)).thresholds(thresholds(_PLAIN))
    return panel.legend(common.VizLegendOptions().show_legend(show_legend=True).placement(LegendPlacement.BOTTOM))


def listing(
    title: str,
    queries: list[Query],
    source: DataSourceRef,
    *,
    about: str,
    none: str,
    span: int = 24,
    height: int = 8,
    sort: tuple[str, bool] | None = None,
) -> table.Panel:
    """Return a table. Several queries are joined on the labels that all of them have.

    Args:
        sort: a column's name, and whether from its highest value down.
    """
    panel = table.Panel().title(title).description(about).datasource(source).span(span).height(height)
    panel = panel.targets(queries).no_value(none).filterable(filterable=True)
    if len(queries) > 1:
        panel = panel.with_transformation(DataTransformerConfig("merge", options={}))
    if sort:
        panel = panel.sort_by([common.TableSortByFieldState().display_name(sort[0]).desc(sort[1])])
    return panel


def columns(panel: table.Panel, names: Mapping[str, str], *, hidden: tuple[str, ...] = ()) -> table.Panel:
    """Rename and order a table's columns, and hide some. Columns that are not named come last."""
    return panel.with_transformation(
        DataTransformerConfig(
            "organize",
            options={
                "excludeByName": dict.fromkeys(("Time", "__name__", *hidden), True),
                "indexByName": {name: index for index, name in enumerate(names)},
                "renameByName": {name: title for name, title in names.items() if name != title},
            },
        )
    )


def column(
    panel: table.Panel,
    name: str,
    *,
    unit: str = "",
    steps: Steps = (),
    mapped: Mapping[int, tuple[str, str]] | None = None,
    colors: Mapping[str, str] | None = None,
    link: str = "",
    width: int = 0,
) -> table.Panel:
    """Say how a column of a table looks.

    Args:
        mapped: words for its numbers.
        colors: colors for its words.
        link: the address that a cell leads to.
    """
    found: list[DynamicConfigValue] = []
    if unit:
        found.append(DynamicConfigValue("unit", unit))
    if width:
        found.append(DynamicConfigValue("custom.width", width))
    if steps:
        found.append(DynamicConfigValue("thresholds", thresholds(steps).build()))
    if mapped:
        found.append(DynamicConfigValue("mappings", words(mapped)))
    if colors:
        results = {word: ValueMappingResult(color=color) for word, color in colors.items()}
        found.append(DynamicConfigValue("mappings", [ValueMap(results)]))
    if steps or mapped or colors:
        found.append(DynamicConfigValue("custom.cellOptions", {"type": TableCellDisplayMode.COLOR_TEXT}))
    if link:
        found.append(DynamicConfigValue("links", [{"title": f"Open {name.lower()}", "url": link}]))
    return panel.override_by_name(name, found)


def bars(
    title: str,
    query: Query,
    source: DataSourceRef,
    *,
    about: str,
    unit: str,
    none: str,
    span: int = 8,
    height: int = 8,
) -> bargauge.Panel:
    """Return a horizontal bar for each row of a query: its text and its number."""
    panel = bargauge.Panel().title(title).description(about).datasource(source).span(span).height(height)
    panel = panel.with_target(query).unit(unit).no_value(none).min(0).orientation(VizOrientation.HORIZONTAL)
    panel = panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    # every row is a bar, not only the last
    return panel.reduce_options(common.ReduceDataOptions().values(values=True).calcs(["lastNotNull"]).limit(25))
