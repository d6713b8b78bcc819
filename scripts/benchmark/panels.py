"""Draws the panels of the dashboard plainly, from what Prometheus answered to their queries.

Usage: python -m benchmark.panels ANSWERS.json PICTURE.png; needs the dependency group `bench`.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import EngFormatter, PercentFormatter, StrMethodFormatter
from PIL import Image

COLUMNS: Final = 3
UNITS: Final = {
    "s": EngFormatter("s"),
    "bytes": EngFormatter("B"),
    "Bps": EngFormatter("B/s"),
    "percentunit": PercentFormatter(1),
}


def draw(answers: dict[str, Any], file: Path) -> None:
    panels = sorted(answers["panels"], key=lambda one: (one["place"]["y"], one["place"]["x"]))
    rows = -(-len(panels) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(11, 1.75 * rows), layout="constrained")
    for panel, axis in zip(panels, axes.flat, strict=False):
        for name, points in sorted(panel["lines"].items()):
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1)
        axis.set_title(panel["title"], fontsize=8, loc="left")
        axis.set_xlim(0, answers["seconds"])
        axis.set_ylim(0, 1.3 * axis.get_ylim()[1])  # room for the legend
        axis.tick_params(labelsize=6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.yaxis.set_major_formatter(UNITS.get(panel["unit"], StrMethodFormatter("{x:g}")))
        axis.legend(fontsize=5, frameon=False, loc="upper right", ncols=2)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.savefig(file, dpi=90)
    Image.open(file).quantize(64).save(file, optimize=True)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
