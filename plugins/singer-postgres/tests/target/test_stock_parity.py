"""Message files of the SDK and of the MeltanoLabs target: ours leaves the same tables as theirs, or better ones."""

from __future__ import annotations

import importlib.resources
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import singer_sdk.testing.target_test_streams
import target_postgres.tests

if TYPE_CHECKING:
    from collections.abc import Callable

_SDK = Path(str(importlib.resources.files(singer_sdk.testing.target_test_streams)))
_STOCK = Path(str(importlib.resources.files(target_postgres.tests))) / "data_files"
# where both have a file of one name, it is the SDK's
FILES = {path.stem: path for directory in (_STOCK, _SDK) for path in sorted(directory.glob("*.singer"))}
# two records under a schema that takes the SDK 15 s to check
del FILES["tap_aapl"]

_SANITIZE = {"sanitize_null_text_characters": True}
_HARD = {"hard_delete": True}


@dataclass(frozen=True)
class Case:
    """A file, fed with settings; what it leaves differs in `better` alone, if in anything."""

    stem: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.stem, *self.settings])


CASES = [
    *map(Case, sorted(FILES)),
    Case("encoded_string_data", _SANITIZE),
    Case("base16_content_encoding_interpreted", {"interpret_content_encoding": True}),
    Case("record_missing_required_property", {"validate_records": False}),
    *(Case(stem, _HARD) for stem in sorted(FILES) if stem.startswith("test_activate_version")),
]

# how a row of ours follows from the stock target's, and why ours is the better one
BETTER: dict[str, tuple[str, Callable[[str], str]]] = {
    "commits": (
        "a text in a column of arrays is an array of one element; the stock target takes it to letters",
        lambda row: re.sub(r'"\{([^,{}](?:,[^,{}])+)\}"', lambda found: "{" + found[1].replace(",", "") + "}", row),
    ),
    "jsonb_data": (
        "null in a JSON column is SQL's null, which `is null` finds; the stock target stores JSON's",
        lambda row: row.replace("(null,", "(,"),
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_file_of_messages_leaves_what_it_leaves_with_the_stock_target(case, targets):
    lines = FILES[case.stem].read_text(encoding="utf-8").splitlines()
    stock = targets["stock"].feed(lines, **case.settings)
    # the stock target ends with the first stream that it can't load
    ours = targets["ours"].feed(lines, on_stream_error="stop", **case.settings)
    assert ours.error == stock.error
    assert ours.columns == stock.columns
    # ours tells each state as soon as it holds, and not the last one alone
    assert ours.states[-1:] == stock.states
    if stock.error is None:
        _, better = BETTER.get(case.stem, ("", str))
        assert ours.rows == {table: sorted(map(better, rows)) for table, rows in stock.rows.items()}
