"""`max_source_mb_per_s`, by a clock of its own."""

from __future__ import annotations

import pytest

from singer_postgres.tap.read_ceiling import ReadCeiling

MB = 2**20


class Clock:
    """Time passes only while somebody sleeps."""

    now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def never() -> bool:
    return False


@pytest.mark.parametrize("received", [100, 2**13, MB], ids=["messages of the log", "pieces", "whole rows"])
def test_no_second_has_more_than_the_ceiling_and_one_piece(received):
    clock = Clock()
    ceiling = ReadCeiling(2, clock=lambda: clock.now, sleep=clock.sleep)
    # what is not read in time can't be read later
    clock.now += 60
    at = []
    for _ in range(max(10, 8 * MB // received)):
        at.append(clock.now)
        ceiling.pause(received, is_over=never)
    # two pointers over all windows of a second
    first = 0
    for last, moment in enumerate(at):
        while at[first] <= moment - 1:
            first += 1
        # short pauses are made together
        assert (last - first + 1) * received <= 2 * MB * 1.02 + received
    assert clock.now - 60 == pytest.approx(len(at) * received / (2 * MB), rel=0.02)


def test_readers_wait_for_each_other_and_a_pause_ends_when_it_must():
    clock = Clock()
    ceiling = ReadCeiling(1, clock=lambda: clock.now, sleep=clock.sleep)
    assert ceiling.pause(MB, is_over=lambda: clock.now > 0.3) == pytest.approx(0.3, abs=0.06)
    # what the other reader has received counts too
    assert ceiling.pause(MB, is_over=never) == pytest.approx(1.7, abs=0.06)
