"""Writes the generated files into a project, for set-up and `make definitions`: `python -m tidemark.release DIRECTORY`.

It prints the path of each file that was missing or different. With --link, it links the package's directories instead.
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
    for name in write.write(Path(directory)):
        print(name)  # noqa: T201 - its caller reads it


if __name__ == "__main__":
    main()
