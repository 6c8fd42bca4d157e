"""Where the process starts: signals and errors first, so that nothing that follows can end in a traceback."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

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
        sys.exit(interruption.exit_status)
    except TidemarkError as error:
        if "--debug" in sys.argv:
            raise
        _say(f"error: {error}")
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # the reader of our output went away, as `head` does
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
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


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
