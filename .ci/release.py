"""Checks that all files have the version to be released, and prints its section of the changelog.

python .ci/release.py v0.1.0
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_SECTION = r"^## \[{}\] - \d{{4}}-\d\d-\d\d$\n(.*?)(?=^## |^\[|\Z)"


def versions() -> dict[str, str]:
    """Return the version of each package, by its file."""
    files = sorted(ROOT.glob("plugins/*/pyproject.toml"))
    return {str(file.relative_to(ROOT)): tomllib.loads(file.read_text())["project"]["version"] for file in files}


def notes(version: str) -> str | None:
    """Return the changelog's section for a version, if its heading has a date."""
    found = re.search(
        _SECTION.format(re.escape(version)), (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE | re.DOTALL
    )
    return found[1].strip() if found else None


def main(tag: str) -> None:
    """Print the notes of the release.

    Raises:
        SystemExit: a file has another version.
    """
    version = tag.removeprefix("v")
    for file, found in versions().items():
        if f"v{found}" != tag:
            sys.exit(f"error: {file} has version {found} and the tag is {tag!r}; use one version, such as v{found}.")
    if not (text := notes(version)):
        sys.exit(f"error: CHANGELOG.md has nothing under '## [{version}] - YYYY-MM-DD'; move [Unreleased] there.")
    print(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004
        sys.exit("error: name the tag: `make release-notes TAG=v0.1.0`.")
    main(sys.argv[1])
