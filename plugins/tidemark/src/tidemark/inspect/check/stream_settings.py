"""Checks the settings that name streams: whether the source has such a stream, and whether they do anything for it.

And whether there are chunk files for all who read and load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core import setting_names
from singer_postgres.core.errors import SingerPostgresError
from singer_postgres.core.source import masks
from tidemark.inspect.check.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tidemark.inspect.check.relations import CheckedRelation
    from tidemark.inspect.check.streams import Configuration, Stream

# settings that do something for streams of one method alone. Masks and conditions do for all methods, and may be there
# before their stream is selected.
_OF_METHOD = {"commit_columns": "LOG_BASED", "change_history": "LOG_BASED", "allow_duplicates": "INCREMENTAL"}
# the run refuses them rather than do without
_REFUSED = ("commit_columns", "change_history")


def findings(
    configuration: Configuration, relations: Iterable[CheckedRelation], selected: Iterable[Stream]
) -> Iterator[Finding]:
    """Yield what the tap refuses of its masks, and the settings that name a stream for which they do nothing."""
    try:
        masks.refuse(configuration.masks, configuration.mask_secret, variable=f"{configuration.prefix}_MASK_SECRET")
    except SingerPostgresError as error:
        yield Finding("source", Level.error, str(error).rstrip("."))
    yield from _idle(configuration)
    if configuration.first_load_part:
        what = (
            f"first_load_part names {', '.join(sorted(configuration.first_load_part))}, so each run reads a part of "
            "that first load alone; only `tidemark run --shard` sets it, for its own runs: unset it, see "
            f"{configuration.path}"
        )
        yield Finding("source", Level.error, what)
    known = {relation.stream for relation in relations}
    read = {stream.name: stream for stream in selected}
    for setting, names in (
        ("masks", configuration.masks),
        ("where", configuration.where),
        ("allow_duplicates", configuration.allow_duplicates),
        ("commit_columns", configuration.commit_columns),
        ("change_history", configuration.change_history),
        ("raw_partitions", configuration.raw_partitions),
    ):
        place = "the target's `config`" if setting == "raw_partitions" else configuration.path
        for name in sorted(names):
            if setting == "raw_partitions":
                yield from _of_other_partitions(name, configuration.raw_partitions[name])
            what = f"{setting} names {name}"
            if name in known:
                yield from _without_effect(what, setting, read.get(name), configuration)
            elif meant := setting_names.meant_stream(name, known):
                what += f", which the source does not have; {meant} is one: correct it in {place}"
                yield Finding("source", Level.error, what)
            else:
                what += f", which the source does not have, so that has no effect; see {place}"
                yield Finding("source", Level.warning, what)


# what says how large the partitions are, by how they are made
_SIZES = {"hash": "count", "range": "width"}


def _of_other_partitions(name: str, wanted: Mapping[str, Any]) -> Iterator[Finding]:
    own = _SIZES.get(wanted.get("by", ""))
    for by, other in _SIZES.items():
        if own and other != own and other in wanted:
            what = (
                f"raw_partitions has {other} {wanted[other]!r} for {name}, which is partitioned by {wanted['by']}, so "
                f"that has no effect: write {own}, or by: {by}, in the target's `config`"
            )
            yield Finding("warehouse", Level.warning, what)


def _idle(configuration: Configuration) -> Iterator[Finding]:
    files, needed = configuration.chunks_outstanding, configuration.readers + configuration.loaders
    if files is not None and files < needed and not configuration.sends_records:
        what = (
            f"chunks_outstanding is {files}: the tap's {configuration.readers} readers and the target's "
            f"{configuration.loaders} loaders (max_parallel) wait for each other with fewer than {needed} chunk files, "
            f"which need as many times chunk_size_mb of disk. Raise it, or leave it out of {configuration.path}"
        )
        yield Finding("source", Level.note, what)


def _without_effect(what: str, setting: str, stream: Stream | None, configuration: Configuration) -> Iterator[Finding]:
    if (needed := _OF_METHOD.get(setting)) is None:
        return
    change = f"or take it out of {setting} in {configuration.path}"
    if stream is None:
        what += f", which is not selected, so that has no effect: select it as {needed}, {change}"
        yield Finding("source", Level.warning, what)
    elif stream.method != needed:
        method = stream.method or "FULL_TABLE"
        is_refused = setting in _REFUSED
        effect = "runs refuse that" if is_refused else "that has no effect"
        what += f", which is {method} and not {needed}, so {effect}: make it {needed} in `metadata`, {change}"
        yield Finding("source", Level.error if is_refused else Level.warning, what)
