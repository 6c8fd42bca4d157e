"""What docs/how-to/tables.md says to do for a second source."""

from __future__ import annotations

import re
import shlex
import textwrap
from typing import TYPE_CHECKING

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

_PAGE = REPOSITORY / "docs/how-to/tables.md"
_EXTRACT = "extract/crm.meltano.yml"


def command() -> list[str]:
    """Return the arguments of the page's command after `tidemark`."""
    (found,) = re.findall(r"^    \.venv/bin/tidemark (source add .*)$", _PAGE.read_text(), re.MULTILINE)
    return shlex.split(found)


def select_streams(root: Path) -> None:
    """Write the page's streams into the file of the tap, which must be as the page shows it."""
    blocks = re.findall(r"(?:^    .*\n)+", _PAGE.read_text(), re.MULTILINE)
    (shown,) = (textwrap.dedent(block) for block in blocks if "inherit_from" in block)
    (streams,) = (
        textwrap.indent(textwrap.dedent(block), " " * 6) for block in blocks if "[public-contacts.*]" in block
    )
    text = (root / _EXTRACT).read_text()
    assert text.endswith(shown), text
    select, _, metadata = streams.partition("\n")
    text = text.replace("      select: []", select).replace("      metadata: {}\n", metadata)
    (root / _EXTRACT).write_text(text)
