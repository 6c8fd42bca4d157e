"""Draws a picture of results: `python plot_results.py RESULTS.json`."""

import json
import statistics
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "results"
from matplotlib import pyplot as plt  # noqa: E402

KINDS = {"first load": "#1f5f8b", "idle": "#9bb8c9", "1 % changed": "#e0a458"}
path = Path(sys.argv[1])
sections = json.loads(path.read_text())
figure, axes = plt.subplots(
    len(sections), 1, figsize=(9, 1 + sum(0.8 + 0.6 * len(s["peers"]) for s in sections.values())), squeeze=False
)
for axis, section in zip(axes[:, 0], sections.values(), strict=True):
    names = [name for name, peer in section["peers"].items() if peer["runs"]]
    for offset, (kind, colour) in enumerate(KINDS.items()):
        for row, name in enumerate(names):
            runs = [run["seconds"] for run in section["peers"][name]["runs"].get(kind, []) if run["right"]]
            if runs:
                middle = statistics.median(runs)
                axis.barh(row + (offset - 1) * 0.27, middle, 0.25, color=colour, label=kind if not row else None)
                axis.text(middle * 1.05, row + (offset - 1) * 0.27, f"{middle:.1f}", va="center", fontsize=8)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("seconds, median, logarithmic")
    axis.set_title(f"{section['title']}: {section['rows']:,} rows", loc="left")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in KINDS.values()]
    axis.legend(handles, KINDS, frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.12)
figure.tight_layout()
figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
