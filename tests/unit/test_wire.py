"""The wire format, version 1: an older target reads what this tap writes, and the other way round."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from singer_postgres.core.read_report import ReadReport
from singer_postgres.core.wire import Chunk, EmptyRange, StreamEnd, batch_from_json

ORIGIN = {
    "snapshot": "00000003-1",
    "snapshot_at": "2026-01-01T00:00:00.000000Z",
    "lsn": "0/16B3748",
    "end": "2026-01-01T01:00:00.000000Z",
    "resumed": ((16384, 0, 8),),
}
COMMON = (
    '"snapshot": "00000003-1", "snapshot_at": "2026-01-01T00:00:00.000000Z", "position": "0/16B3748", "start": null, '
    '"end": "2026-01-01T01:00:00.000000Z"'
)


@pytest.mark.parametrize(
    ("batch", "counts", "blocks"),
    [
        pytest.param(
            Chunk(**ORIGIN, rows=2, bytes=31, crc32=4, blocks=(16384, 8, None)),
            '"rows": 2, "bytes": 31, "crc32": 4',
            "[16384, 8, null]",
            id="chunk",
        ),
        pytest.param(
            Chunk(**ORIGIN, rows=None, bytes=31, crc32=4),
            '"rows": null, "bytes": 31, "crc32": 4',
            "null",
            id="part of a range",
        ),
        pytest.param(
            EmptyRange(**ORIGIN, blocks=(16384, 8, 16)),
            '"rows": 0, "bytes": 0, "crc32": 0',
            "[16384, 8, 16]",
            id="empty range",
        ),
    ],
)
def test_each_kind_of_chunk_is_written_and_read_as_version_1_has_it(batch, counts, blocks):
    text = (
        f'{{"format": "pgcopy", "version": 1, {counts}, {COMMON}, "blocks": {blocks}, "resumed": [[16384, 0, 8]], '
        '"last": false, "backfill": false}'
    )
    assert json.dumps(batch.to_json()) == text
    assert batch_from_json(json.loads(text)) == batch
    if isinstance(batch, Chunk):
        again = replace(batch, again=True)
        assert json.dumps(again.to_json()) == text[:-1] + ', "again": true}'
        assert batch_from_json(again.to_json()) == again


def test_the_end_of_a_stream_is_read_with_and_without_a_report_of_how_it_was_read():
    text = (
        f'{{"format": "pgcopy", "version": 1, "rows": 0, "bytes": 0, "crc32": 0, {COMMON}, "blocks": null, '
        '"resumed": [[16384, 0, 8]], "last": true, "backfill": false'
    )
    report = ReadReport(1, 2.5, "transaction", 60.0, 800, 5, 2, 16, 0.5, 1.5)
    members = (
        '"retries": 1, "seconds": 2.5, "held_by": "transaction", "held_seconds": 60.0, "source_bytes": 800, '
        '"source_buffers_hit": 5, "source_buffers_read": 2, "source_wal_bytes": 16, "snapshot_seconds": 0.5, '
        '"seconds_paused": 1.5'
    )
    told = f'{text}, "report": {{{members}}}}}'
    assert json.dumps(StreamEnd(**ORIGIN, report=report).to_json()) == told
    assert batch_from_json(json.loads(told)) == StreamEnd(**ORIGIN, report=report)
    # a newer tap may tell more
    assert batch_from_json(json.loads(told.replace("1.5}", '1.5, "colour": "blue"}'))).report == report
    # an older one tells nothing
    assert batch_from_json(json.loads(f"{text}}}")) == StreamEnd(**ORIGIN)
