"""Names that the project still uses and this release no longer has: settings, variables, and names in dbt's files."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from dotenv import dotenv_values

from tidemark.inspect.check import settings
from tidemark.inspect.check.finding import Finding, Level
from tidemark.project import definitions, user_files, yaml_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.project.directory import Project
    from tidemark.project.yaml_files import ProjectFiles

_OURS = re.compile(r"^(?:TAP_|TARGET_|DBT_POSTGRES_|TIDEMARK_)")
# variables of a plugin that Meltano itself knows, such as TAP_POSTGRES__SELECT
_OF_MELTANO = re.compile(r"__(?:SELECT|SELECT_FILTER|METADATA|SCHEMA|CATALOG|STATE|LOAD_SCHEMA|USE_CACHED_CATALOG)")
_MATERIALIZATIONS = {
    "kept_table": "in_place_table",
    "kept_view": "in_place_view",
    "kept_materialized_view": "in_place_materialized_view",
    "kept_incremental": "in_place_incremental",
    "partitioned_incremental": "in_place_incremental",
}
# macros and tests that were the project's own, and are now in the package tidemark
_MACROS = "cleaned|utc|surrogate_key|unknown_key|built_until|loader_runs"
_MACROS_IN_PLACE = "horizon|horizon_of|staged_keys|snapshot_goes_on|version_xid"
_TESTS = "at_least|belongs_to|built_within|foreign_key|in_dimension|known_member|unique_together"
_RENAMED = [
    *((re.compile(rf"\b{old}\b"), old, new) for old, new in _MATERIALIZATIONS.items()),
    (re.compile(rf"\{{[\{{%][^}}]*?(?<![\w.])({_MACROS})\("), None, "tidemark.{}"),
    (re.compile(rf"\{{[\{{%][^}}]*?(?<![\w.])({_MACROS_IN_PLACE})\("), None, "in_place.{}"),
    (re.compile(r"\b(kept_lock_\w+)"), None, "in_place_lock_…"),
    (re.compile(rf"^ *- ({_TESTS}):?$", re.MULTILINE), None, "tidemark.{}"),
]


def findings(project: Project) -> Iterator[Finding]:
    """Yield a finding for each such name.

    Raises:
        UsageError: Meltano's files can't be read, or a plugin has no definition.
    """
    files = yaml_files.read(project)
    found = [
        *settings.misspelt_keys(project, files),
        *settings.unknown(project, files),
        *_variables(project, files),
        *_in_dbt(project),
    ]
    yield from found
    if not found:
        yield Finding("both", Level.ok, "the project uses no setting or name that this release has renamed or removed")


def _variables(project: Project, files: ProjectFiles) -> Iterator[Finding]:
    """Yield a warning for each variable of ours in .env that nothing reads."""
    example = project.root / ".env.example"
    text = example.read_text(encoding="utf-8") if example.exists() else ""
    known = set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", text, re.MULTILINE))
    prefixes = []
    for kind, plugin in files.plugins():
        prefix = re.sub(r"[^A-Z0-9]", "_", plugin["name"].upper())
        prefixes.append(prefix)
        names = definitions.read(project, files, kind, plugin["name"]).settings
        known |= {f"{prefix}_{re.sub(r'[^A-Z0-9]', '_', name.upper())}" for name in names}
    for name in dotenv_values(project.dotenv, encoding="utf-8") if project.dotenv.exists() else ():
        # an object's parts, as TAP_POSTGRES_BATCH_CONFIG_STORAGE, are variables too
        parts = any(name.startswith(f"{each}_") for each in known)
        if not _OURS.match(name) or name in known or parts or _OF_MELTANO.search(name):
            continue
        meant = next(iter(difflib.get_close_matches(name, known, n=1)), None)
        hint = f"; {meant} is one" if meant else ""
        yield Finding("both", Level.warning, f"{name} in .env is no variable of this release{hint}")


def _in_dbt(project: Project) -> Iterator[Finding]:
    """Yield a warning for each old name in the user's dbt files."""
    transform = project.root / "transform"
    for path in sorted([*transform.rglob("*.sql"), *transform.rglob("*.yml")]):
        name = path.relative_to(project.root).as_posix()
        if not user_files.is_users(name) or "dbt_packages" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        for pattern, old, new in _RENAMED:
            for match in dict.fromkeys(old or each[1] for each in pattern.finditer(text)):
                yield Finding("both", Level.warning, f"{name}: {match} is now {new.format(match)}")
