"""Writes the generated files into a project, for set-up and `make definitions`: `python -m tidemark.release DIRECTORY`.

It prints the path of each file that was missing or different, and a sentence about each that this release does not
have. With --link, it links the package's directories instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tidemark.release import write


def main() -> None:
    """Write them, or link."""
    *options, directory = sys.argv[1:]
    if options == ["--link"]:
        write.link(Path(directory))
        return
    done = write.write(Path(directory))
    for line in [*done.written, *done.notes()]:
        print(line)  # noqa: T201 - its caller reads it


if __name__ == "__main__":
    main()
