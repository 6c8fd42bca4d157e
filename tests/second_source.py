"""What docs/how-to/tables.md says to add for a second source."""

from __future__ import annotations

import re
import textwrap

from tests.conftest import REPOSITORY


def recipe() -> dict[str, str]:
    """Return what the page adds to which file, as deep as the lists there are."""
    text = (REPOSITORY / "docs/how-to/tables.md").read_text()
    (found,) = re.findall(r"\n\n((?:    .*\n|\n)*    - name: target-crm(?:.*\n)(?:    .*\n)*)", text)
    added = {}
    for plugin in re.split(r"\n\n", found.strip("\n")):
        name = re.search(r"# (\w+/\w+\.meltano\.yml)", plugin)
        assert name, plugin
        added[name[1]] = textwrap.indent(textwrap.dedent(plugin), "    ") + "\n"
    return added
