"""Keeps the results of `make bench-transform` and `make bench-tracking` in transform.json, and shows them in a page."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

from bench.report import DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Measure = Callable[["Section"], float | None]
Section = dict[str, Any]
"""The results at one scale, or those of change tracking, as in the JSON file."""
OURS = "Tidemark"
TRACKING = "tracking"
_RESULTS = DIRECTORY / "transform.json"
_KINDS = ("full, warm", "full, cold", "change, warm", "change, cold")
_LEAST_S = 0.1
_INTRODUCTION = """\
# What a build of the marts costs

`make bench-transform` loads the demo shop and builds its marts in full. Then, {rounds} times warm and {rounds} times
cold, it changes the shop (`tidemark demo change --rows {rows}`), loads the change and builds again. Warm: as the load
left the server. Cold: {cold}. Full builds are first builds, one warm and one cold.

Seconds are medians of what dbt reports. dbt builds four models at a time on {cores} cores, so models wait for each
other, and the sum over models exceeds the whole build. A build begins after a checkpoint, and after VACUUM ANALYZE of
the tables that autovacuum would take, so that neither falls into a measurement.
"""
_PEERS = """\
## Beside stock dbt

[The same marts](peers/dbt) over the same staging views, built by dbt's own materializations in turns with Tidemark's.
The incremental ones take the rows with `loaded_at > (select max(loaded_at) from {{{{ this }}}})`, have the indexes that
they need, and delete from the facts what raw marks as deleted. In the same command Tidemark also builds {others}; the
first sum is without those, and the lines below it are with them.
"""
_MISSED = """\
### Rows that a peer gets wrong, scale {scale:g}

After each event all marts are built and compared row by row with Tidemark's: rows that the peer lacks / rows that it
has and should not have. An outdated row counts in both. What a peer got wrong stays so.
"""


def save(name: str, section: Section) -> None:
    """Write one section, and the page of all sections."""
    sections = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
    sections[name] = section
    # atomically: an interruption must not lose the other sections
    scratch = _RESULTS.with_suffix(".new")
    scratch.write_text(json.dumps(sections, indent=1) + "\n")
    scratch.replace(_RESULTS)
    _RESULTS.with_suffix(".md").write_text(markdown(sections))


def markdown(sections: dict[str, Section]) -> str:
    """Return all results as a page."""
    scales = sorted((each for name, each in sections.items() if name != TRACKING), key=lambda each: each["scale"])
    parts: list[str] = []
    if scales:
        parts.append(_INTRODUCTION.format(**scales[0]))
        parts += [_own(section) for section in scales]
        if len(scales) > 1:
            parts.append(_growth(scales))
        compared = [section for section in scales if len(section["builds"]) > 1]
        if compared:
            others = sorted(set(_models(compared[-1], OURS)) - set(_shared(compared[-1])))
            parts.append(_PEERS.format(others=", ".join(others)))
            for section in compared:
                parts += [_beside(section, kind) for kind in ("change, warm", "change, cold", "full, warm")]
                parts += [_missed(section)] if section["missed"] else []
    if TRACKING in sections:
        parts.append(_tracking(sections[TRACKING]))
    return "\n".join(parts)


def _own(section: Section) -> str:
    """Return the table of this project's models."""
    rows = [
        f"## Scale {section['scale']:g}",
        "",
        section["about"],
        "",
        "| model | full, warm: s | cold | rows | change, warm: s | cold | rows | change / full, warm | cold |",
        "|---" * 9 + "|",
    ]

    def row(name: str, measure: Measure, *, digits: int = 2, written: tuple[str, str] = ("", "")) -> None:
        full_warm, full_cold, warm, cold = figures = [_median(section, OURS, kind, measure) for kind in _KINDS]
        shown = [_number(figure, digits) for figure in figures]
        cells = [*shown[:2], written[0], *shown[2:], written[1], _ratio(warm, full_warm), _ratio(cold, full_cold)]
        rows.append(f"| {name} | {' | '.join(cells)} |")

    for model in _models(section, OURS):
        written = [_median(section, OURS, kind, _rows_of(model)) for kind in ("full, warm", "change, warm")]
        row(model, _seconds_of(model), written=(_number(written[0], 0), _number(written[1], 0)))
    row("all models, summed", _sum_of(_models(section, OURS)))
    row("whole build without dbt's start", lambda build: build["dbt_s"])
    row("command", lambda build: build["wall_s"])
    row("WAL, MB", _wal_mb, digits=0)
    return "\n".join([*rows, ""])


def _growth(scales: Sequence[Section]) -> str:
    """Return the table of the same change at each scale over the smallest one."""
    base, *others = scales
    pairs = [(other, kind) for other in others for kind in ("change, warm", "change, cold")]
    heads = [f"{kind.removeprefix('change, ')}, {other['scale']:g} / {base['scale']:g}" for other, kind in pairs]
    rows = [
        "## The same change at another scale",
        "",
        "Time at one scale divided by time at the other. A model that takes less than 0.1 s at both has no ratio.",
        "",
        "A build by key looks up the changed keys, whatever the size of the table, with three exceptions",
        "here. mart_daily_sales reads each changed day as a whole, and a day has as many more sales as the",
        "shop is larger. fct_orders and mart_customer_lifetime look up rows that are spread over the table:",
        "with a larger one, fewer of its pages are in shared_buffers. At scale 20 that holds for fct_sales, too,",
        "and a cold build reads them from disk. What each of them takes beside a full build is in the tables above.",
        "",
        f"| model | {' | '.join(heads)} |",
        "|---" * (len(heads) + 1) + "|",
    ]

    def row(name: str, measure: Measure, least: float = 0) -> None:
        cells = []
        for other, kind in pairs:
            small, large = (_median(section, OURS, kind, measure) for section in (base, other))
            cells.append(_ratio(large, small) if max(small or 0, large or 0) >= least else "")
        if any(cells):
            rows.append(f"| {name} | {' | '.join(cells)} |")

    for model in _models(base, OURS):
        row(model, _seconds_of(model), least=_LEAST_S)
    row("all models, summed", _sum_of(_models(base, OURS)))
    row("whole build without dbt's start", lambda build: build["dbt_s"])
    row("command", lambda build: build["wall_s"])
    row("WAL", _wal_mb)
    return "\n".join([*rows, ""])


def _beside(section: Section, kind: str) -> str:
    """Return the table of this project and its peers for one kind of build."""
    names = list(section["builds"])
    rows = [
        f"### {kind[0].upper()}{kind[1:]}, scale {section['scale']:g}",
        "",
        f"| seconds | {' | '.join(names)} |",
        "|---" * (len(names) + 1) + "|",
    ]

    def row(name: str, measure: Measure, digits: int = 2) -> None:
        cells = [_number(_median(section, builder, kind, measure), digits) for builder in names]
        rows.append(f"| {name} | {' | '.join(cells)} |")

    for model in _shared(section):
        row(model, _seconds_of(model))
    row("these, summed", _sum_of(_shared(section)))
    row("whole build without dbt's start", lambda build: build["dbt_s"])
    row("command", lambda build: build["wall_s"])
    row("WAL, MB", _wal_mb, 0)
    if kind == "change, warm":
        cells = [_number(section["reads"][builder], 2) for builder in names]
        rows.append(f"| then reading mart_daily_sales | {' | '.join(cells)} |")
    return "\n".join([*rows, ""])


def _missed(section: Section) -> str:
    peers = [name for name in section["builds"] if name != OURS]
    rows = [
        _MISSED.format(**section),
        f"| after | {' | '.join(peers)} |",
        "|---" * (len(peers) + 1) + "|",
    ]
    for event, missed in section["missed"].items():
        cells = [
            ", ".join(
                f"{model} {lacks:,} / {extra:,}" for model, (lacks, extra) in missed[peer].items() if lacks or extra
            )
            for peer in peers
        ]
        rows.append(f"| {event} | {' | '.join(cell or 'none' for cell in cells)} |")
    return "\n".join([*rows, ""])


def _tracking(section: Section) -> str:
    lines = [
        f"""\
## What change tracking costs a load

The loader's merge of {section["rows"]:,} updated rows into raw.orders with {section["table_rows"]:,} rows, and its
commit, with and without the triggers that log changes, in turns by `make bench-tracking`. In a share of these rows the
update changes a value that models are built by, so the triggers log the row. {section["about"]}

| rows with another tracked value | without: s | with: s | with / without, by pair |
|---|---|---|---|"""
    ]
    for share, seconds in section["shares"].items():
        ratios = [after / before for before, after in zip(seconds["without"], seconds["with"], strict=True)]
        before, after = statistics.median(seconds["without"]), statistics.median(seconds["with"])
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {share} % | {before:.2f} | {after:.2f} | {ratio} |")
    return "\n".join([*lines, ""])


def _models(section: Section, builder: str) -> list[str]:
    return sorted(section["builds"][builder]["full, warm"][0]["models"])


def _shared(section: Section) -> list[str]:
    """Return the models of the peers."""
    return _models(section, next(name for name in section["builds"] if name != OURS))


def _median(section: Section, builder: str, kind: str, measure: Measure) -> float | None:
    figures = [figure for build in section["builds"][builder][kind] if (figure := measure(build)) is not None]
    return statistics.median(figures) if figures else None


def _seconds_of(model: str) -> Measure:
    return lambda build: build["models"][model][0] if model in build["models"] else None


def _rows_of(model: str) -> Measure:
    return lambda build: build["models"][model][1] if model in build["models"] else None


def _sum_of(models: Sequence[str]) -> Measure:
    return lambda build: sum(build["models"][model][0] for model in models if model in build["models"])


def _wal_mb(build: Section) -> float:
    return float(build["wal_bytes"]) / 1e6


def _number(figure: float | None, digits: int) -> str:
    return "" if figure is None else f"{figure:,.{digits}f}"


def _ratio(value: float | None, by: float | None) -> str:
    return f"{value / by:.2f}" if value is not None and by else ""
