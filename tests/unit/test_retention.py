from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tidemark.backup.manifest import began, new_name
from tidemark.backup.retention import abandoned, expired

NOW = datetime(2026, 11, 25, 1, 30, tzinfo=UTC)
NIGHTS = [new_name(NOW - timedelta(days=days), f"{days:06x}") for days in range(10)]


@pytest.mark.parametrize(
    ("keep", "days", "stay"),
    [
        (None, None, 10),
        (3, None, 3),
        (None, 4, 5),
        (7, 4, 7),
        (2, 4, 5),
        (1, None, 1),
        (None, 0.001, 1),
        (20, None, 10),
    ],
    ids=["no rule", "count", "age", "count if more", "age if more", "one", "the newest whatever its age", "few"],
)
def test_a_backup_stays_if_either_rule_keeps_it_and_the_newest_always_does(keep, days, stay):
    gone = expired(NIGHTS, now=NOW, keep=keep, keep_days=days)
    assert gone == sorted(NIGHTS[stay:])


def test_an_unfinished_backup_is_stale_after_a_day_and_foreign_files_never_are():
    names = [NIGHTS[0], NIGHTS[2], f"{NIGHTS[3]}.partial", "notes", "tidemark-20261101T000000Z-mine"]
    assert abandoned(names, now=NOW) == [f"{NIGHTS[3]}.partial", NIGHTS[2]]


@pytest.mark.parametrize("name", ["tidemark", "tidemark-20261399T000000Z-00000a", "x-20261101T000000Z-00000a"])
def test_a_foreign_name_has_no_time(name):
    assert began(name) is None
