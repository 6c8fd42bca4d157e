"""The start of the process. It handles signals and errors first, so that nothing later ends in a traceback."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

from singer_postgres.core import run_events
from singer_postgres.core.errors import CodedError, one_line
from tidemark.errors import Interruption, TidemarkError
from tidemark.held_signals import ENDING

if TYPE_CHECKING:
    from types import FrameType


def main() -> None:
    """Run the command line. An error that a user can cause ends in one line and a non-zero exit status."""
    for number in ENDING:
        signal.signal(number, _interrupt)
    try:
        # imported late: the imports take half a second, in which a user may press Ctrl-C
        from tidemark.cli.app import app  # noqa: PLC0415
        from tidemark.project import work_dir  # noqa: PLC0415

        work_dir.enter_if_named()
        app()
    except Interruption as interruption:
        _say("Interrupted. Run the same command again to resume where this stopped.")
        sys.exit(interruption.status)
    except TidemarkError as error:
        _report(error)
        if "--debug" in sys.argv:
            raise
        _say(f"error: {error}")
        sys.exit(error.status)
    except BrokenPipeError:
        # the reader of our output has ended, like `head`
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        _report(error)
        what = one_line(f"{type(error).__name__}: {error}")
        _say(f"error: {what}; this is unexpected: run it again with `tidemark --debug …` and report what that prints.")
        sys.exit(1)


def _interrupt(number: int, _: FrameType | None) -> None:
    """Raise an Interruption. Further signals are ignored, so that they can't interrupt the clean-up."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise Interruption(number)


def _report(error: Exception) -> None:
    """Tell the program that started this one which error it was."""
    kind = error if isinstance(error, CodedError) else CodedError()
    fields = {**kind.fields(), "message": one_line(error)}
    run_events.emit(error=fields)
    _log(error, fields)
    if "--attended" in sys.argv:
        _say(json.dumps({"error": fields}))


def _log(error: Exception, fields: dict[str, Any]) -> None:
    """Write the error into the log of all runs, unless the run that it ended has done so."""
    from tidemark.logs.run_log import RunLog, of_error  # noqa: PLC0415 - as in main

    if not getattr(error, "is_logged", False):
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        RunLog().write(f"tidemark {command}: {fields['message']}", level="error", more=of_error(fields))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
