"""Says at the end of an onboarding what is on board, what was written, and what is left to a person."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from tidemark.inspect.reconcile import show as reconcile_show
from tidemark.onboard.words import listed
from tidemark.onboard.write import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from tidemark.onboard.apply import Applied
    from tidemark.onboard.first_run import FirstRun
    from tidemark.onboard.plan import Plan
    from tidemark.onboard.proposal import TableProposal

_DIFF = "tidemark onboard {} --dry-run"


def changes(applied: Applied, *, diff: bool = False, first: bool = False) -> Iterator[str]:
    """Yield what changes in the files, in lines.

    Args:
        diff: with each file's difference.
        first: all tables are new, so only what is special is said.
    """
    for table in () if first else applied.written.tables:
        yield f"{table.stream}: {table.kind}{': ' if table.what else ''}{'; '.join(table.what)}"
    for file in applied.written.files:
        if file.status is not Status.unchanged and not (first and file.status not in _STATUS):
            yield f"{file.path}: {_STATUS.get(file.status, file.status.value)}"
            if diff and file.diff:
                yield file.diff.rstrip("\n")
    yield from applied.others
    yield from applied.written.notes
    if applied.written.manifest_changes and not first:
        yield "the list of what is on board (extract/*.onboarded.json): changed"


_STATUS = {
    Status.edited: "left alone, because somebody edited or removed it",
    Status.foreign: "left alone, because somebody else made it",
    Status.gone: "its table is no longer read; --remove-gone removes it",
}


def show(console: Console, plan: Plan, applied: Applied, done: FirstRun | None, *, seconds: float) -> None:
    """Print the summary."""
    proposal = plan.proposal
    console.print()
    if done:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("table", "method", "rows", "compared", "reason"):
            is_number = heading == "rows"
            table.add_column(
                heading, justify="right" if is_number else "left", overflow="fold", no_wrap=heading != "reason"
            )
        for each in proposal.read:
            table.add_row(*_row(each, proposal.source, done))
        console.print(table)
        differing = [result for result in done.compared.values() if not result.equal]
        if differing:
            reconcile_show.show(console, differing)
        _say(console, f"\n{' '.join(_figures(done))}")
    files = Counter(file.status for file in applied.written.files)
    counts = ", ".join(f"{count} {status.value}" for status, count in files.items())
    _say(console, f"Files: {counts or 'none'}. {'; '.join(applied.others)}".rstrip())
    left = list(_left(plan, applied, done))
    if left:
        console.print(Text("Left to you:", "bold"))
    for what in left:
        _say(console, f"  - {what}")
    _say(console, f"Done in {seconds:.1f} s. Next:")
    console.print(Text("  git add --all && git commit    # what was written is yours", "cyan"), soft_wrap=True)
    console.print(
        Text("  make pipeline                 # all sources; from now on, only what changed", "cyan"), soft_wrap=True
    )


def as_dict(applied: Applied, done: FirstRun | None) -> dict[str, Any]:
    """Return what was written and done as a JSON object."""
    found: dict[str, Any] = {
        "changes": applied.changes,
        "files": [{"path": each.path, "status": each.status.value} for each in applied.written.files],
        "table_changes": [
            {"stream": each.stream, "kind": each.kind, "what": list(each.what)} for each in applied.written.tables
        ],
        "others": list(applied.others),
        "sql": [path for path, _ in applied.sql],
    }
    if done:
        found |= {
            "rows": {f"{name}/{stream}": rows for (name, stream), rows in sorted(done.rows.items())},
            "equal": {f"{name}/{stream}": each.equal for (name, stream), each in sorted(done.compared.items())},
            "models": done.models,
            "tests": done.tests,
        }
    return found


def _row(each: TableProposal, source: str, done: FirstRun) -> tuple[Text, ...]:
    place = each.pair or source, each.table.stream
    rows, result = done.rows.get(place), done.compared.get(place)
    compared = Text("not compared", "yellow") if result is None else Text("equal", "green")
    if result is not None and not result.equal:
        compared = Text("differs", "red")
    reason = Text(each.reason)
    if each.warnings:
        reason.append(f"\n! {each.warnings[0]}", "yellow")
    method = f"{each.method.value}{f' by {each.replication_key}' if each.replication_key else ''}"
    return Text(str(each.table)), Text(method), Text("" if rows is None else f"{rows:,}"), compared, reason


def _figures(done: FirstRun) -> Iterator[str]:
    equal = sum(result.equal for result in done.compared.values())
    yield f"{sum(done.rows.values()):,} rows of {len(done.rows)} tables loaded, {equal} of {len(done.compared)} equal."
    if done.models or done.tests:
        yield f"{done.models} models built."
        yield f"Tests: {', '.join(f'{count} {what}' for what, count in done.tests.items())}."


def _left(plan: Plan, applied: Applied, done: FirstRun | None) -> Iterator[str]:
    """Yield what only a person can do."""
    proposal = plan.proposal
    name = proposal.source
    if questions := [each for each in proposal.read if each.question]:
        what = listed(f"{each.table.name}.{each.question.column}" for each in questions if each.question)
        yield (
            f"{_count(questions, 'open question')} ({what}): --incremental TABLE=COLUMN or --trust-defaults answers; "
            "until then those tables are read whole"
        )
    if masked := [mask for each in proposal.read if not each.masks_confirmed for mask in each.masks]:
        yield f"{_count(masked, 'mask')} to confirm: tidemark onboard {name} --masks"
    yield from _late_masks(plan, is_loaded=done is not None and not done.failed)
    for each in proposal.tables:
        if each.by_edited_file:
            yield f"{each.table} is not read: {each.reason}"
    for path, what in applied.sql:
        yield f"{path}: {what}, for a person to run in the source"
    if plan.options.marts == "draft" and any("/marts/" in each.path for each in applied.written.files):
        yield f"the drafted marts are not built yet: tidemark onboard {name} --enable-marts"
    if edited := applied.written.with_status(Status.edited, Status.foreign):
        what = listed(each.path for each in edited)
        yield f"{_count(edited, 'file')} left as somebody made them ({what}): {_DIFF.format(name)} shows the difference"
    if gone := applied.written.with_status(Status.gone):
        yield f"{_count(gone, 'file')} of tables that are no longer read: tidemark onboard {name} --remove-gone"
    yield from proposal.warnings
    yield from applied.written.notes


def _late_masks(plan: Plan, *, is_loaded: bool) -> Iterator[str]:
    """Yield tables that were on board before their masks: the tap reads them from their beginning."""
    for each in plan.proposal.read:
        known = plan.before.tables.get(each.table.stream)
        if known and each.masks_confirmed and known.masks.keys() != {mask.column for mask in each.masks}:
            what = "reached all rows of the source" if is_loaded else "reach all rows of the source with the next run"
            yield f"{each.table}: its masks {what}; rows that the source no longer has, and snapshots, keep old values"


def _count(found: list[Any], what: str) -> str:
    return f"{len(found)} {what}{'s' * (len(found) != 1)}"


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
