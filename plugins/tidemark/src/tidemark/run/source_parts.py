"""Limits dbt to models by the sources that they stand on. tidemark_dbt.source_parts reads what this writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tidemark.errors import UsageError
from tidemark.project import sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

_VARIABLE = "TIDEMARK_DBT_SOURCES"


def variable(asked: Mapping[str, object]) -> dict[str, str]:
    """Return the variable for dbt's wrapper; none if nothing is asked for."""
    return {_VARIABLE: json.dumps(asked)} if asked else {}


def without(failed: Iterable[SourceDefinition]) -> dict[str, object]:
    """Ask dbt to leave out what stands on sources that were not loaded."""
    schemas = sorted(source.raw_schema for source in failed)
    return {"without": schemas} if schemas else {}


def only(project: Project, part: str, parts: str) -> dict[str, object]:
    """Ask dbt for one part of the models.

    Args:
        part: the sources that these models stand on, such as `crm+postgres`.
        parts: all parts, such as `crm,postgres,crm+postgres`.

    Raises:
        UsageError: there is no such source, or the part is not among the parts.
    """
    wanted, *named = [frozenset(each.split("+")) for each in (part, *parts.split(","))]
    if wanted not in named:
        raise UsageError(f"--part is {part}, and --parts {parts} does not have it; name all parts there.")
    schemas = {name: sources.find(project, name).raw_schema for name in sorted(frozenset().union(*named))}

    def of(names: frozenset[str]) -> list[str]:
        return sorted(schemas[name] for name in names)

    return {"part": of(wanted), "parts": [of(each) for each in named]}
