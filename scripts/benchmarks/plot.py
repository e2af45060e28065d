"""Draws the curves: ``plot.py RESULTS.json PLOT.svg``, run by an interpreter that has matplotlib."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl  # type: ignore[import-not-found]
from matplotlib import pyplot as plt

_COLUMNS = 2


def _draw(axes: Any, curve: dict[str, Any]) -> None:
    for name, points in curve["lines"].items():
        x, y = [point["x"] for point in points], [point["median"] for point in points]
        below = [point["median"] - point["min"] for point in points]
        above = [point["max"] - point["median"] for point in points]
        axes.errorbar(x, y, yerr=[below, above], marker="o", markersize=4, capsize=3, label=name)
    axes.set_xscale("log", base=2 if curve["x"] == "readers" else 10)
    if curve["x"] == "readers":
        axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_ylim(bottom=0)
    axes.set_title(curve["title"], fontsize=10)
    axes.set_xlabel(curve["x"])
    axes.set_ylabel(curve["y"])
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)


def main() -> None:
    """Draw each curve of the results in axes of its own: medians, with bars from the least to the greatest."""
    curves = json.loads(Path(sys.argv[1]).read_text())["curves"]
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "imgfs", "font.size": 9}
    rows = max(1, -(-len(curves) // _COLUMNS))
    figure, grid = plt.subplots(rows, _COLUMNS, figsize=(10, 3.6 * rows), squeeze=False, layout="constrained")
    for axes, curve in zip(grid.flat, curves, strict=False):
        _draw(axes, curve)
    for axes in list(grid.flat)[len(curves) :]:
        axes.set_axis_off()
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
