"""Says where dbt checks no freshness: a table without a rule is never late, which nobody sees."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tidemark.inspect.check.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_NAMED = 6


def findings(manifest: Path, loaded: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """Yield a note on loaded tables that dbt knows and that have no rule.

    Args:
        manifest: dbt's, as its latest command wrote it; nothing is known without it.
        loaded: schema and name of each table that a stream is loaded into.
    """
    try:
        content: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        rules = {(each["schema"], each["identifier"]): _has_rule(each) for each in content["sources"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    if bare := sorted(f"{schema}.{name}" for schema, name in loaded if rules.get((schema, name)) is False):
        more = f" and {len(bare) - _NAMED} more" if len(bare) > _NAMED else ""
        what = f"dbt checks no freshness of {', '.join(bare[:_NAMED])}{more}"
        yield Finding("warehouse", Level.note, f"{what}: give their source `freshness` and `loaded_at_query`")


def _has_rule(source: dict[str, Any]) -> bool:
    rule = source.get("freshness") or {}
    return any((rule.get(name) or {}).get("count") is not None for name in ("warn_after", "error_after"))
