"""What a person does next: where no stream is selected, and after a run that succeeded."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tidemark.errors import UsageError
from tidemark.project import sources, yaml_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

# of several marts, one that is likely to have something to see
_FIRST = ("fct_", "mart_", "dim_")


def refuse_without_streams(project: Project, blocks: Sequence[str] | None = None) -> None:
    """Raise if no tap selects any stream, as after `tidemark demo remove`; or none of those that are run.

    Args:
        blocks: arguments of `meltano run`; None for all taps.

    Raises:
        UsageError: there is nothing to read; or a file can't be read.
    """
    taps = [plugin for kind, plugin in yaml_files.read(project).plugins() if kind == "extractors"]
    if blocks is not None:
        read = sources.of_blocks(project, blocks)
        # of several, the others are loaded, and the tap of this one says so
        if read and all(selects_nothing(project, source.tap) for source in read):
            raise UsageError(f"{read[0].tap} has nothing to read: {nothing_selected(read[0])}.")
        return
    if not taps or any(_selects(project, tap) for tap in taps):
        return
    raise UsageError(
        "No stream is selected, so there is nothing to read. `tidemark onboard` proposes streams for the tables of "
        "your database (TAP_POSTGRES_HOST in .env), `tidemark source add` adds another one, and `tidemark demo add` "
        "puts the demo shop back; docs/how-to/tables.md explains the entries in extract/extractors.meltano.yml."
    )


def selects_nothing(project: Project, tap: str) -> bool:
    """Return whether a tap's `select` is an empty list."""
    files = yaml_files.read(project)
    # an environment of meltano.yml may have another one
    known_by = {_variable(each["name"]) for each in files.ancestry("extractors", tap)}
    if files.only_meltano_knows("extractors", tap, known_by):
        return False
    return not _selects(project, files.plugin("extractors", tap))


def nothing_selected(source: SourceDefinition) -> str:
    """Return what to do about a source that selects no stream."""
    return (
        f"no stream is selected; `tidemark onboard {source.name}` proposes streams for its tables, `tidemark source "
        f"retire {source.name}` gives it up"
    )


def _selects(project: Project, tap: Mapping[str, Any]) -> bool:
    # without the key, Meltano selects every table
    if tap.get("select", ["*"]):
        return True
    return project.variable(_variable(tap["name"])) not in {None, "[]"}


def _variable(tap: str) -> str:
    """Return the variable that replaces a tap's `select`."""
    return f"{re.sub(r'[^A-Z0-9]', '_', tap.upper())}__SELECT"


def after_a_run(project: Project, *, with_shop: bool, streams: Iterable[str]) -> list[str]:
    """Return three commands to try after a run.

    Args:
        with_shop: whether the source is the demo shop.
        streams: the streams that the run read.
    """
    first = "make demo-change pipeline     # a day's traffic in the shop, then its load"
    own = "make pipeline                 # again: only what changed is read"
    table = _mart(project) or next(
        (f"raw.{stream.partition('-')[2]}" for stream in sorted(streams) if "/" not in stream), None
    )
    return [
        first if with_shop else own,
        f".venv/bin/tidemark psql warehouse   # try: table {table} limit 5;" if table else ".venv/bin/tidemark status",
        "make docs                     # the models, columns and lineage in a browser",
    ]


def _mart(project: Project) -> str | None:
    """Return a mart of the latest build, as dbt's manifest has it."""
    try:
        manifest: dict[str, Any] = json.loads((project.dbt_target / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    marts = [
        f"{node['schema']}.{node['alias']}"
        for node in manifest.get("nodes", {}).values()
        if node["resource_type"] == "model" and node["schema"].endswith("marts")
    ]
    return min(marts, key=_place, default=None)


def _place(mart: str) -> tuple[int, str]:
    name = mart.partition(".")[2]
    return next((place for place, prefix in enumerate(_FIRST) if name.startswith(prefix)), len(_FIRST)), name
