"""Follows the advice of a run's errors word for word until a run succeeds."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from psycopg import errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.singer.conftest import Pipe, Synced

State = dict[str, Any] | None
# the number of advices to follow before giving up
_MOST = 6


def refusals(synced: Synced) -> list[str]:
    """Return why streams could not be read or loaded, one line each."""
    said = "failed; the run continues: "
    lines = (synced.tap_log + synced.target_log).splitlines()
    return sorted({line.partition(said)[2] for line in lines if said in line})


def run_until_well(
    pipe: Pipe,
    streams: dict[str, Any],
    state: State,
    *,
    told: Callable[[Synced, list[str]], None] = lambda *_: None,
    fix: Callable[[str], bool] = lambda _: False,
) -> tuple[State, list[str]]:
    """Run and follow the advice of errors until nothing is refused; return the state and the errors.

    Args:
        told: called with each run and the reasons why it was refused.
        fix: applies the advice for the source, and returns whether there was any.
    """
    met: list[str] = []
    for _ in range(_MOST):
        synced = pipe.sync(streams, state)
        assert "Traceback" not in synced.tap_log + synced.target_log, synced.tap_log + synced.target_log
        state = synced.state or state
        refused = refusals(synced)
        told(synced, refused)
        if (synced.tap_status, synced.target_status) == (0, 0):
            return state, met
        assert refused, synced.tap_log + synced.target_log
        for error in refused:
            met.append(error)
            if not fix(error):
                state = follow(pipe, error, state)
    raise AssertionError(f"It is refused again and again: {met}")


def follow(pipe: Pipe, error: str, state: State) -> State:
    """Follow an error's advice: run its statement, rewind the state, or run again."""
    # a statement without a semicolon ends with its sentence
    statements = re.findall(r"((?:ALTER|DROP) (?:TABLE|VIEW|RULE) .*?)(?:;|\.$|, or )", error)
    with pipe.warehouse() as connection:
        for statement in statements:
            try:
                connection.execute(statement.replace("…", f"kept_{time.monotonic_ns()}"))
            except errors.Error:
                # the next statement is an alternative if this one fails
                continue
            if "RENAME TO" in statement:
                return rewound(error, state)
            return state
    if "tidemark state rewind" in error:
        return rewound(error, state)
    assert "run this again" in error or "run discovery again" in error, error
    return state


def rewound(error: str, state: State) -> State:
    """Return the state after `tidemark state rewind STREAM` if an error advises it."""
    stream = re.search(r"tidemark state rewind ([^ `]+)", error)
    if not stream:
        return state
    bookmarks = {name: entry for name, entry in ((state or {}).get("bookmarks") or {}).items() if name != stream[1]}
    return {**(state or {}), "bookmarks": bookmarks}
