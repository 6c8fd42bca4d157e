"""What MkDocs can't know: pages that live beside the code they are about, and links to files that are no pages."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

# pages of the site that are files of the repository, where people read them too
BESIDE_THE_CODE = {
    "plugins/singer-postgres/README.md": "repository/tap-and-target.md",
    "plugins/tidemark-airflow/README.md": "repository/airflow.md",
    "transform/macros/kept/README.md": "repository/kept.md",
    "deploy/helm/README.md": "repository/helm.md",
    "bench/results.md": "repository/bench.md",
    "bench/transform.md": "repository/bench-transform.md",
    "bench/reconcile.md": "repository/bench-reconcile.md",
    "bench/results.svg": "repository/results.svg",
    "transform/docs/lineage.png": "repository/lineage.png",
    "CONTRIBUTING.md": "repository/contributing.md",
    "SECURITY.md": "repository/security.md",
    "CHANGELOG.md": "repository/changelog.md",
}
_SHIM, _OURS = "https://unpkg.com/iframe-worker/shim", "assets/iframe-worker.js"
_PLACES = {page: source for source, page in BESIDE_THE_CODE.items()}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add what lies outside docs/."""
    root = Path(config.config_file_path).parent
    for source, page in BESIDE_THE_CODE.items():
        files.append(File.generated(config, page, abs_src_path=str(root / source)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Lead links to the pages of the site; of a link to another file of the repository, leave the words."""
    here = page.file.src_uri
    source = Path(_PLACES.get(here, f"docs/{here}"))

    def lead(found: re.Match[str]) -> str:
        mark, words, target, anchor = found.groups()
        place = os.path.normpath(source.parent / target)
        to = place.removeprefix("docs/") if place.startswith("docs/") else BESIDE_THE_CODE.get(place)
        if to is None:
            return words
        return f"{mark}[{words}]({os.path.relpath(to, Path(here).parent)}{anchor or ''})"

    return _LINK.sub(lead, markdown)


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Have the site bring along what the search of pages that are opened from a disk is fetched from elsewhere for."""
    return output.replace(_SHIM, os.path.relpath(_OURS, Path(page.file.dest_uri).parent))


def on_post_template(output: str, **_: Any) -> str:
    """Do so for the page that is shown where there is none."""
    return output.replace(_SHIM, _OURS)
