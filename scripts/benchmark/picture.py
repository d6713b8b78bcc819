"""Draws the ratios of a run.

Usage: python -m benchmark.picture RESULT.json PICTURE.png; needs the dependency group `bench`.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmark.report import rows

COLOURS: Final = ("#c6dbef", "#6baed6", "#2171b5", "#08306b")


def draw_bars(axes: Axes, found: list[dict[str, Any]], ratio: str, form: str) -> None:
    """Draw a group of bars for each operation, one bar for each number of clients."""
    names = list(dict.fromkeys(row["service"]["operation"] for row in found))
    sizes = list(dict.fromkeys(row["service"]["clients"] for row in found))
    width = 0.8 / len(sizes)
    for place, clients in enumerate(sizes):
        values = {
            row["service"]["operation"]: row[ratio] or 0
            for row in found
            if row["service"]["clients"] == clients
        }
        at = [number + (place - (len(sizes) - 1) / 2) * width for number in range(len(names))]
        colour = COLOURS[place % len(COLOURS)]
        heights = [values.get(name, 0) for name in names]
        bars = axes.bar(at, heights, width, label=f"{clients} clients", color=colour)
        axes.bar_label(bars, fmt=form, fontsize=6)
    axes.set_xticks(range(len(names)), names)
    axes.spines[["top", "right"]].set_visible(False)


def draw(result: dict[str, Any], file: Path) -> None:
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 6), layout="constrained")
    found = rows(result)
    draw_bars(upper, found, "times_textbook", "{:.3g}")
    upper.axhline(1, color="black", linewidth=0.8)
    upper.set_yscale("log")
    upper.yaxis.set_major_formatter("{x:g}")
    upper.set_title(
        "Requests a second, times the textbook's (Strawberry's view, a session a request)",
        fontsize=9,
    )
    upper.legend(fontsize=7, ncols=4, frameon=False)
    draw_bars(lower, found, "of_ceiling", "{:.0%}")
    lower.set_title("Share of the ceiling (a Starlette route that answers a constant)", fontsize=9)
    lower.yaxis.set_major_formatter("{x:.0%}")
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
