"""What the SDK asks a stream about its batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from singer_sdk.helpers._batch import BatchConfig

from conftest import SCHEMA, make_source, settings
from singer_postgres.core.wire import FORMAT
from singer_postgres.tap import streams
from singer_postgres.tap.tap import TapPostgres

if TYPE_CHECKING:
    from pathlib import Path

make_source()


@pytest.mark.parametrize("use_copy", [True, False], ids=["chunks", "records"])
def test_a_stream_gives_the_sdk_a_batch_config_only_if_it_is_sent_in_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_copy: bool
) -> None:
    monkeypatch.setattr(streams, "_read_by_a_program", lambda: True)
    tap = TapPostgres(config=settings(use_copy=use_copy, chunk_dir=str(tmp_path)))
    config = tap.streams[f"{SCHEMA}-everything"].get_batch_config(tap.config)
    assert isinstance(config, BatchConfig) is use_copy
    if config is not None:
        assert (config.encoding.format, config.storage.root) == (FORMAT, tmp_path.as_uri())
