from __future__ import annotations

import pytest

from tidemark.local.postgres.server_errors import server_error


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param("FATAL: could not write: No space left on device", "the disk is full", id="full-disk"),
        pytest.param(
            'FATAL:  could not extend file "base/1/3605": wrote only 4096 of 8192 bytes at block 1',
            "the disk is full",
            id="half-written-as-the-disk-filled",
        ),
        pytest.param(
            "FATAL:  pre-existing shared memory block (key 1, ID 2) is still in use", "ps -ef", id="orphaned-backends"
        ),
        pytest.param(
            "2026-11-23 05:00:00 UTC [12] LOG:  starting\n2026-11-23 05:00:00 UTC [12] FATAL:  wrong ownership",
            "pg_ctl failed for the source server: wrong ownership",
            id="reason-from-the-log",
        ),
        pytest.param("", "it printed nothing", id="silence"),
    ],
)
def test_the_programs_output_becomes_one_line(said, told, tmp_path):
    line = server_error(said, program="pg_ctl", side="source", directory=tmp_path)
    assert told in line
    assert "\n" not in line
