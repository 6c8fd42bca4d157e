"""Message files of the SDK and of the MeltanoLabs target: ours leaves the same tables as theirs, or better ones."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import pytest
import singer_sdk.testing.target_test_streams
import target_postgres.tests

SDK = Path(str(importlib.resources.files(singer_sdk.testing.target_test_streams)))
STOCK = Path(str(importlib.resources.files(target_postgres.tests))) / "data_files"
FILES = sorted([*SDK.glob("*.singer"), *STOCK.glob("*.singer")])
SETTINGS = {"base16_content_encoding_interpreted": {"interpret_content_encoding": True}}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.parent.parent.name}-{path.stem}")
def test_a_file_of_messages_leaves_what_it_leaves_with_the_stock_target(path, targets):
    outcomes = {}
    for kind, target in targets.items():
        outcomes[kind] = target.feed(path.read_text().splitlines(), **SETTINGS.get(path.stem, {}))
    stock, ours = outcomes["stock"], outcomes["ours"]
    print(targets["stock"].message, "|", targets["ours"].message)
    assert ours.error == stock.error
    assert ours.columns == stock.columns
    assert ours.rows == stock.rows
    assert ours.states == stock.states
