"""Writes a source's tap and target for Meltano: which streams are read, how, and into which schema."""

from __future__ import annotations

import io
import json
import re
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tidemark.onboard.methods import BY_CHOICE
from tidemark.onboard.names import FIRST
from tidemark.onboard.proposal import Method

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tidemark.onboard.proposal import Proposal, TableProposal

_WIDTH = 118
_ITEM = 8


@dataclass(frozen=True)
class MeltanoSource:
    """How a source's tap and target are named and where they are written.

    Attributes:
        tap, target: the names of the plugins.
        tap_parent, target_parent: the plugins that they inherit from; None for plugins with a lock file of their own.
        tap_path, target_path: their files, relative to the project.
        tap_config, target_config: further settings, such as `database`.
    """

    tap: str
    target: str
    tap_path: str
    target_path: str
    tap_parent: str | None = "tap-postgres"
    target_parent: str | None = "target-postgres"
    tap_config: Mapping[str, Any] = field(default_factory=dict)
    target_config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, source: str) -> MeltanoSource:
        """Return a source's usual names. The first source has lock files, and its files are there already."""
        if source == FIRST:
            paths = "extract/extractors.meltano.yml", "load/loaders.meltano.yml"
            return cls(f"tap-{source}", f"target-{source}", *paths, tap_parent=None, target_parent=None)
        return cls(f"tap-{source}", f"target-{source}", f"extract/{source}.meltano.yml", f"load/{source}.meltano.yml")

    def target_of(self, pair: str) -> str:
        """Return the target that loads a pair's tables."""
        return f"target-{pair}" if pair else self.target


def files(proposal: Proposal, source: MeltanoSource) -> dict[str, str]:
    """Return the text of the taps' and the targets' file, by path."""
    # what a person left out is in the manifest
    left_out = [each for each in proposal.tables if each.method is Method.left_out and each.reason != BY_CHOICE]
    read = [
        f"The streams of {proposal.source}, each with the reason for its method. `tidemark onboard` wrote this file.",
        "It writes it again when the source's tables change, unless somebody edited it.",
        *(line for each in left_out for line in _lines(f"Left out: {each.table}: {each.reason}", 0)),
    ]
    loaded = [f"Where the rows of {proposal.source} are loaded. `tidemark onboard` wrote this file."]
    pairs = ["", *sorted(proposal.pairs)]
    return {
        source.tap_path: _text("extractors", [_extractor(proposal, source, pair) for pair in pairs], read),
        source.target_path: _text("loaders", [_loader(proposal, source, pair) for pair in pairs], loaded),
    }


def stream_pattern(stream: str) -> str:
    """Return a stream's name as a pattern of `select` or `metadata` that matches it alone.

    Meltano splits both at dots, and matches the parts with fnmatch. A dot becomes a class of three characters with the
    dot in the middle, because `metadata` knows no escaped dot.
    """
    pattern = re.sub(r"[*?\[\\$]", r"[\g<0>]", stream).replace(".", "[--/]")
    # a leading ! would leave the stream out
    return f"[ -!]{pattern[1:]}" if pattern.startswith("!") else pattern


def _extractor(proposal: Proposal, source: MeltanoSource, pair: str) -> Any:
    from ruamel.yaml.comments import CommentedMap, CommentedSeq  # noqa: PLC0415

    tables = [each for each in proposal.read if each.pair == pair]
    # a pair inherits the source's masks, and the tap refuses one of a stream that it does not know
    inherited = [each for each in proposal.read if pair and not each.pair and each.masks and each.masks_confirmed]
    config: dict[str, Any] = {"filter_schemas": sorted({each.table.schema for each in (*tables, *inherited)})}
    if masks := _masks(tables):
        config["masks"] = masks
    if not pair:
        zone = proposal.timestamp_timezone
        config |= {**({"timestamp_timezone": zone} if zone else {}), **source.tap_config}
    select = CommentedSeq()
    for each in tables:
        _add(select, f"{stream_pattern(each.table.stream)}.*", _why(each))
        for column, why in sorted(each.left_out_columns.items()):
            _add(select, f"!{stream_pattern(each.table.stream)}.{stream_pattern(column)}", why)
    if not select:
        # an empty list would select what the parent selects
        _add(select, "!*.*", "no table of it is read")
    return CommentedMap(
        # a pair has the source's connection
        {
            "name": f"tap-{pair}" if pair else source.tap,
            **(
                {"inherit_from": source.tap, "annotations": {"tidemark": {"pair_of": proposal.source}}}
                if pair
                else {"inherit_from": source.tap_parent, "variant": "bare"}
                if source.tap_parent
                else {"variant": "tidemark"}
            ),
            "config": config,
            "select": select,
            "metadata": _metadata(tables),
        }
    )


def _loader(proposal: Proposal, source: MeltanoSource, pair: str) -> Any:
    from ruamel.yaml.comments import CommentedMap  # noqa: PLC0415

    schema = proposal.pairs[pair] if pair else proposal.raw_schema
    parent = source.target if pair else source.target_parent
    return CommentedMap(
        {
            "name": source.target_of(pair),
            **({"inherit_from": parent} if parent else {"variant": "tidemark"}),
            "config": {"default_target_schema": schema, **({} if pair else source.target_config)},
        }
    )


def _why(table: TableProposal) -> str:
    by = f" by {table.replication_key}" if table.replication_key else ""
    confirmed = [f"{each.column} is masked ({each.mask}): {each.why}" for each in table.masks if table.masks_confirmed]
    return "; ".join([f"{table.method.value}{by}: {table.reason}", *confirmed])


def _add(select: Any, pattern: str, why: str) -> None:
    comment = _lines(why, _ITEM)
    if len(pattern) > _WIDTH - _ITEM:
        comment.append("yamllint disable-line rule:line-length")
    select.append(pattern)
    select.yaml_set_comment_before_after_key(len(select) - 1, before="\n".join(comment), indent=_ITEM)


def _lines(text: str, indent: int) -> list[str]:
    return textwrap.wrap(_one_line(text), _WIDTH - indent, break_on_hyphens=False)


def _one_line(text: str) -> str:
    """Return a text without what YAML does not allow in a comment."""
    return " ".join("".join(each if each.isprintable() or each.isspace() else "?" for each in text).split())


def _masks(tables: Iterable[TableProposal]) -> dict[str, dict[str, str]]:
    return {
        # Meltano nests a setting at each dot that is not escaped
        each.table.stream.replace(".", "\\."): {mask.column.replace(".", "\\."): mask.mask for mask in each.masks}
        for each in tables
        if each.masks and each.masks_confirmed
    }


def _metadata(tables: Iterable[TableProposal]) -> Any:
    """Return `metadata` as JSON, because Meltano adds the parent's entries to those of a mapping."""
    from ruamel.yaml.scalarstring import LiteralScalarString  # noqa: PLC0415

    entries = []
    for each in tables:
        if each.method is not Method.full_table:
            stream, values = _json(stream_pattern(each.table.stream)), _json(_replication(each))
            entry = f"  {stream}: {values}"
            entries.append(entry if len(entry) <= _WIDTH - _ITEM else f"  {stream}:\n    {values}")
    return LiteralScalarString("{\n" + ",\n".join(entries) + "\n}") if entries else "{}"


def _replication(table: TableProposal) -> dict[str, str]:
    key = {"replication-key": table.replication_key} if table.replication_key else {}
    return {"replication-method": table.method.value, **key}


def _json(value: Any) -> str:
    # Meltano would replace $NAME by a variable's value
    return json.dumps(value, ensure_ascii=False).replace("$", "\\u0024")


def _text(kind: str, plugins: list[Any], head: list[str]) -> str:
    from ruamel.yaml import YAML  # noqa: PLC0415
    from ruamel.yaml.comments import CommentedMap  # noqa: PLC0415

    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 4096
    document = CommentedMap(plugins=CommentedMap({kind: plugins}))
    document.yaml_set_start_comment("\n".join(head))
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()
