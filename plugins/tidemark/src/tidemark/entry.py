"""Where the process starts: signals and errors first, so that nothing that follows can end in a traceback."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

from singer_postgres.core import run_events
from singer_postgres.core.errors import CodedError, one_line
from tidemark.errors import Interruption, TidemarkError
from tidemark.signals import ENDING

if TYPE_CHECKING:
    from types import FrameType


def main() -> None:
    """Run the command line; errors that a user can cause end in one line and a status that is not 0."""
    for number in ENDING:
        signal.signal(number, _interrupt)
    try:
        # late, as half a second of imports is time enough for a Ctrl-C
        from tidemark.cli.app import app  # noqa: PLC0415
        from tidemark.project import work_dir  # noqa: PLC0415

        work_dir.enter_if_named()
        app()
    except Interruption as interruption:
        _say("Interrupted. Run the same command again to go on from where this stopped.")
        sys.exit(interruption.status)
    except TidemarkError as error:
        _report(error)
        if "--debug" in sys.argv:
            raise
        _say(f"error: {error}")
        sys.exit(error.status)
    except BrokenPipeError:
        # the reader of our output went away, as `head` does
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        _report(error)
        what = " ".join(f"{type(error).__name__}: {error}".split())
        _say(
            f"error: {what}; this was not foreseen: run it again with `tidemark --debug …` and report what that prints."
        )
        sys.exit(1)


def _interrupt(number: int, _: FrameType | None) -> None:
    """End in an orderly way. That takes a moment, in which a second signal must not cut it short."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise Interruption(number)


def _report(error: Exception) -> None:
    """Tell the program that started this one which error it was: in the run's file, and with --json in a line."""
    kind = error if isinstance(error, CodedError) else CodedError()
    fields = {**kind.fields(), "message": one_line(error)}
    run_events.emit(error=fields)
    if "--json" in sys.argv:
        _say(json.dumps({"error": fields}))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
