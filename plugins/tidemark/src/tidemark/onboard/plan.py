"""Makes the proposal for a source of this project: its catalogs, earlier decisions, the project."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from tidemark.errors import UsageError
from tidemark.onboard import earlier, edit, edited_files, existing_files, rules
from tidemark.onboard.generated import MODELS, Options
from tidemark.onboard.manifest import Manifest
from tidemark.onboard.meltano_files import MeltanoSource
from tidemark.onboard.methods import Answers
from tidemark.onboard.proposal import Method
from tidemark.onboard.rules import Wanted, matching
from tidemark.onboard.staged_columns import dbt_source
from tidemark.onboard.survey import survey
from tidemark.project import database_settings
from tidemark.project.onboarded import manifest_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from tidemark.onboard.proposal import Proposal, TableProposal
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition


@dataclass(frozen=True)
class Choices:
    """What a person said with the command's options.

    Attributes:
        tables: patterns of the only tables that are meant; empty for all.
        schemas: the only schemas that are meant; empty for all.
        masks: all proposed masks are confirmed.
        timezone: that of replication keys without one.
        sample: look at the shape of some values.
        enable_marts: build the drafted marts.
        yaml_per: see `Options`; None for what the source has, or else a file for the folder.
    """

    tables: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    answers: Answers = field(default_factory=Answers)
    masks: bool = False
    timezone: str | None = None
    sample: bool = True
    enable_marts: bool = False
    yaml_per: Literal["folder", "table"] | None = None


@dataclass(frozen=True)
class Plan:
    """The proposal, and how its files are written.

    Attributes:
        unmatched: what the tap selects and the source does not have.
    """

    proposal: Proposal
    options: Options
    before: Manifest
    unmatched: tuple[str, ...] = ()


def make(project: Project, source: SourceDefinition, choices: Choices, *, began: Callable[[str], None]) -> Plan:
    """Read the source and plan how to read its tables. This writes nothing.

    Args:
        began: called with each step, in words.

    Raises:
        TidemarkError: see `survey`.
        UsageError: an option names nothing.
    """
    before = Manifest.read(manifest_path(project, source.name))
    known = {stream for stream, table in before.tables.items() if not table.gone}
    own = {*before.files, *before.writing}
    schemas = {*before.schemas, *choices.schemas} if before.schemas or not before.tables else set(choices.schemas)
    wanted = Wanted(
        source.name,
        choices.tables,
        choices.answers,
        raw_schema=source.raw_schema,
        taken_models=frozenset(
            path.stem
            for path in (project.root / MODELS).rglob("*.sql")
            if path.relative_to(project.root).as_posix() not in own
        ),
        kept=before.names(),
        also=frozenset(known),
    )
    side = database_settings.source(project, source)
    proposal = survey(side, wanted, schemas=sorted(schemas), look_at_values=choices.sample, began=began)
    if choices.timezone:
        proposal = replace(proposal, timestamp_timezone=choices.timezone, timezone_is_chosen=True)
    meltano = MeltanoSource.of(source.name)
    proposal = existing_files.with_masks(project, proposal, meltano, before)
    tables = [each.table for each in proposal.tables]
    named = {table.stream for table in matching(tables, choices.tables)} if choices.tables else set()
    chosen = {*rules.chosen(tables, choices.answers), *rules.following(tables, choices.answers)}
    proposal = earlier.as_before(_not_described(project, proposal), before, named=named, chosen=chosen)
    proposal = replace(proposal, schemas=tuple(sorted(schemas)))
    if choices.masks:
        proposal = edit.confirm_masks(proposal)
    proposal = rules.whole(edited_files.without_missing(project, proposal, meltano, before))
    # of other schemas, this knows no table
    unmatched = () if schemas else tuple(existing_files.unmatched(project, proposal, meltano, before))
    options = Options(
        yaml_per=choices.yaml_per or _yaml_per(source.name, before),
        marts="enabled" if choices.enable_marts or before.marts_enabled else "draft",
        meltano=meltano,
    )
    return Plan(proposal, options, before, unmatched)


def refuse_nothing(plan: Plan) -> None:
    """Raise if no table can be read for want of rights.

    Raises:
        UsageError: see above.
    """
    proposal = plan.proposal
    closed = [each for each in proposal.tables if "the missing grants are listed" in each.reason]
    if not proposal.read and closed:
        schemas = ", ".join(sorted({each.table.schema for each in closed}))
        raise UsageError(
            f"{proposal.role} may read no table of {proposal.source}; GRANT it the rights that are listed above, in "
            f"schema {schemas} (GRANT USAGE ON SCHEMA … and GRANT SELECT ON …), then run this again."
        )


def _yaml_per(source: str, before: Manifest) -> Literal["folder", "table"]:
    folder = f"{MODELS}/staging/{source}/"
    return (
        "table"
        if any(name.startswith(f"{folder}stg_") and name.endswith(".yml") for name in before.files)
        else "folder"
    )


def _not_described(project: Project, proposal: Proposal) -> Proposal:
    """Leave out the tables that another file describes for dbt: dbt would refuse the whole project."""
    there = _described(project, proposal.source)

    def checked(each: TableProposal) -> TableProposal:
        schema = dbt_source(each.raw_schema or proposal.raw_schema)
        if each.method is Method.left_out or not (path := there.get((schema, each.raw_name))):
            return each
        return replace(each, method=Method.left_out, reason=f"{path} describes it already, so it is on board")

    return replace(proposal, tables=tuple(map(checked, proposal.tables)))


def _described(project: Project, source: str) -> dict[tuple[str, str], str]:
    """Return the file of each table of dbt's sources that is not in the source's own folder."""
    import yaml  # noqa: PLC0415

    found: dict[tuple[str, str], str] = {}
    own = project.root / MODELS / "staging" / source
    for path in sorted((project.root / MODELS).rglob("*.yml")):
        text = path.read_text()
        if path.parent == own or "sources:" not in text:
            continue
        with suppress(yaml.YAMLError, AttributeError, TypeError, KeyError):
            for each in yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)).get("sources") or ():  # noqa: S506
                for table in each.get("tables") or ():
                    name = path.relative_to(project.root).as_posix()
                    found |= {(each["name"], table[key]): name for key in ("name", "identifier") if key in table}
    return found
