"""Plans the tasks of a DAG: which there are, and what each follows. Pure: no I/O here.

Loads of several sources run side by side. dbt's tasks after them are split by the sources that models stand on, so
that a source that fails stops only what is built on it:

    extract_load_crm ──────► dbt_run_crm ──────► dbt_test_crm
           │                      └─────────┐
           └──────────┬──► dbt_run_crm_and_shop ──► dbt_test_crm_and_shop
    extract_load_shop ┘             ┌───────┘
           └─────────────► dbt_run_shop ─────► dbt_test_shop

A model is in the smallest part with all of its sources (`tidemark run --part`). There is a part for each source and one
for all of them, so each model has one, also a model that is newer than this plan.

A load may be shared by several runs (`shards`), which are one mapped task.

If there are several sources, each is compared with the warehouse by a task of its own, which waits for no other source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import chain, count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    Part = frozenset[str]

# they put no load on a source worth a slot of its pool, and block no run and no build
_APART = {"tidemark:backup", "tidemark:slots"}
_RECONCILE = ("tidemark:reconcile",)
# dbt's commands that may take some of the models at a time
_SPLIT = {"run", "build", "test", "freshness", "snapshot"}
# a task's id has at most 250 characters
_LONGEST = 200


@dataclass(frozen=True)
class Step:
    """A task: the blocks for `meltano run`, and a name that says what it does.

    Attributes:
        after: the names of the tasks that it follows.
        source: the source that it loads or compares, if that is one of Tidemark's.
        options: options of `tidemark run`.
        part: what its events are about: the source that it loads, or those that its models stand on.
        shards: how many runs share it.
        slots: how many slots of its source's pool each run takes.
    """

    name: str
    blocks: tuple[str, ...]
    after: tuple[str, ...] = ()
    source: str | None = None
    options: tuple[str, ...] = ()
    part: str = ""
    shards: int = 1
    slots: int = 1

    @property
    def loads(self) -> bool:
        """Whether a tap and target are among its blocks."""
        return any(":" not in block for block in self.blocks)

    @property
    def reads_source(self) -> bool:
        """Whether it puts load on a source database."""
        return self.loads or any(block.startswith("tidemark:") for block in set(self.blocks) - _APART)

    @property
    def is_apart(self) -> bool:
        """Whether it waits for no run and no build: a backup, or a look at the slots, which may be urgent."""
        return set(self.blocks) <= _APART

    @property
    def tests(self) -> bool:
        """Whether it tests the models."""
        return any(block.startswith("dbt") and block.endswith(":test") for block in self.blocks)


@dataclass
class _Stage:
    """Steps that don't follow each other.

    Attributes:
        before: what each of its loads follows.
        loads: its loads and comparisons by source.
        parts: its steps by the sources that their models stand on.
    """

    names: list[str] = field(default_factory=list)
    before: tuple[str, ...] = ()
    loads: dict[str, str] = field(default_factory=dict)
    parts: dict[Part, str] = field(default_factory=dict)
    only_loads: bool = False


def plan(
    tasks: Sequence[tuple[str, ...]],
    sources: Mapping[str, str],
    together: Collection[Part] = (),
    compared: Collection[str] = (),
    *,
    shards: int = 1,
) -> tuple[Step, ...]:
    """Return the steps of a job's tasks.

    Args:
        tasks: the blocks of each task.
        sources: the names of the sources by their taps.
        together: sources on which some model stands together.
        compared: the names of the sources that a comparison looks at.
        shards: how many runs share each load of a source.

    Raises:
        ValueError: a task has no blocks.
    """
    several = len({source for blocks in tasks if (source := _loaded(blocks, sources))}) > 1
    found: list[Step] = []
    stage = _Stage()
    for blocks in tasks:
        source = _loaded(blocks, sources)
        if _is_load(blocks):
            if not stage.only_loads:
                stage = _Stage(before=tuple(stage.names), only_loads=True)
            own = _free(task_name(blocks, source if several else None), found)
            # with further blocks, such as a mapper, one run does all of it
            runs = shards if source and len(blocks) == len(("tap", "target")) else 1
            found.append(Step(own, blocks, stage.before, source, part=source or "", shards=runs))
            stage.names.append(own)
            if source:
                stage.loads[source] = own
        elif _is_split(blocks) and (len(stage.loads) > 1 or stage.parts):
            steps = _parts(blocks, stage, together, found)
            parts = {frozenset(step.part.split("+")): step.name for step in steps}
            stage = _Stage([step.name for step in steps], parts=parts)
            found += steps
        elif blocks == _RECONCILE and len(compared) > 1:
            steps = _comparisons(blocks, stage, compared, found)
            stage = _Stage([step.name for step in steps], loads={str(step.source): step.name for step in steps})
            found += steps
        else:
            own = _free(task_name(blocks), found)
            found.append(Step(own, blocks, tuple(stage.names)))
            stage = _Stage([own])
    return tuple(found)


def _comparisons(
    blocks: tuple[str, ...], stage: _Stage, compared: Collection[str], found: Collection[Step]
) -> list[Step]:
    """Return a comparison for each source. It follows what is done with this source, or with no single one."""
    own = {**stage.loads, **{next(iter(part)): name for part, name in stage.parts.items() if len(part) == 1}}
    others = [each for each in stage.names if each not in {*stage.loads.values(), *stage.parts.values()}]
    return [
        Step(
            _free(f"{task_name(blocks)}_{_word(source)}", found),
            blocks,
            (*([own[source]] if source in own else []), *others),
            source,
            options=(f"--source={source}",),
        )
        for source in sorted(compared)
    ]


def _parts(blocks: tuple[str, ...], stage: _Stage, together: Collection[Part], found: Collection[Step]) -> list[Step]:
    """Return the steps of dbt's blocks after a stage, one for each part."""
    whole = frozenset(stage.loads)
    named = {*stage.parts, whole, *map(_one, whole), *(each & whole for each in together)}
    parts = sorted((part for part in named if part), key=lambda part: (len(part), sorted(part)))
    names = {part: _free(f"{task_name(blocks)}_{_words(part, place)}", found) for place, part in enumerate(parts)}
    # what belongs to no source, such as another tap's load
    others = [each for each in stage.names if each not in {*stage.loads.values(), *stage.parts.values()}]

    def after(part: Part) -> list[str]:
        # each follows its own part alone: tests of one part don't keep those of another waiting
        if stage.parts:
            return [stage.parts[part]]
        if len(part) == 1:
            return [*(stage.loads[source] for source in part), *others]
        # models of this part may read those of smaller ones
        below = [each for each in parts if each < part]
        return [names[each] for each in below if not any(each < other for other in below)]

    every = ",".join(map(_label, parts))
    return [
        Step(
            names[part],
            blocks,
            tuple(after(part)),
            options=(f"--part={_label(part)}", f"--parts={every}"),
            part=_label(part),
        )
        for part in parts
    ]


def _one(source: str) -> Part:
    return frozenset({source})


def _words(part: Part, place: int) -> str:
    """Return a part of a task's name."""
    words = _word("_and_".join(sorted(part)))
    return words if len(words) <= _LONGEST else f"{len(part)}_sources_{place + 1}"


def _label(part: Part) -> str:
    return "+".join(sorted(part))


def _is_load(blocks: tuple[str, ...]) -> bool:
    """Return whether the blocks are one load, such as `tap-crm target-crm`."""
    return bool(blocks) and ":" not in "".join(blocks) and sum(block.startswith("tap-") for block in blocks) == 1


def _loaded(blocks: tuple[str, ...], sources: Mapping[str, str]) -> str | None:
    return sources.get(blocks[0]) if _is_load(blocks) else None


def _is_split(blocks: tuple[str, ...]) -> bool:
    return all(block.startswith("dbt") and block.partition(":")[2] in _SPLIT for block in blocks)


def task_name(blocks: tuple[str, ...], source: str | None = None) -> str:
    """Return a task's name, from what it does first: extract_load, dbt_run, dbt_test, reconcile.

    Args:
        source: the source that it loads, if the job loads several.
    """
    first = blocks[0] if blocks else ""
    if not first:
        msg = "a task has no blocks"
        raise ValueError(msg)
    plugin, colon, command = first.partition(":")
    if not colon:
        what = f"extract_load_{source or plugin.removeprefix('tap-')}"
        if source is None and plugin == "tap-postgres":
            what = "extract_load"
    elif plugin == "tidemark":
        what = command
    else:
        what = f"{plugin.partition('-')[0]}_{command}"
    return _word(what)


def _word(text: str) -> str:
    return re.sub(r"\W", "_", text)


def _free(wanted: str, found: Iterable[Step]) -> str:
    """Return the name, with a number after it if a step has it."""
    taken = {step.name for step in found}
    return next(each for each in chain([wanted], (f"{wanted}_{n}" for n in count(2))) if each not in taken)
