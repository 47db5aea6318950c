"""Figures of task vectors: which of them point the same way, and what adding them costs each task.

Records are those of `ntkft taskvectors`, "predicted" and "real", by the name they have in the figure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ntkft.plots.style import GREY, SERIES, SMALL, new_axes, new_grid


def task_cosines(tasks: Sequence[str], records: Mapping[str, Mapping[str, Any]], setting: str) -> Figure:
    """A heat map of each record's cosines, two in a row, on one scale from −1 (blue) to 1 (red), with numbers.

    setting: model, n and seed, for the title
    """
    figure, grid = new_grid(f"Cosines of task vectors\n{setting}", -(-len(records) // 2), min(len(records), 2))
    panels = [axes for row in grid for axes in row]
    for axes, (name, record) in zip(panels, records.items(), strict=False):
        cosines = np.array(record["cosine"], np.float64)
        axes.imshow(cosines, cmap="coolwarm", vmin=-1, vmax=1, aspect="auto")
        axes.grid(visible=False)
        axes.set_title(name, fontsize=SMALL, loc="left")
        axes.set_xticks(range(len(tasks)), tasks)
        axes.set_yticks(range(len(tasks)), tasks)
        for (i, j), value in np.ndenumerate(cosines):
            colour = "white" if abs(value) > 0.7 else "black"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=SMALL, color=colour)
    for axes in panels[len(records) :]:
        axes.set_visible(False)
    return figure


def task_addition(records: Mapping[str, Mapping[str, Any]], setting: str) -> Figure:
    """Accuracy with all vectors added over that with the task's own alone: a group of bars for each task."""
    figure, axes = new_axes(f"Addition of task vectors\n{setting}", "task", "accuracy, all vectors / own alone")
    series = {name: record["addition"]["normalised"] for name, record in records.items()}
    tasks, width = list(next(iter(series.values()))), 0.8 / len(series)
    for position, (colour, (name, values)) in enumerate(zip(SERIES, series.items(), strict=False)):
        places = np.arange(len(tasks)) + (position - (len(series) - 1) / 2) * width
        heights = np.array([values[task] for task in tasks], np.float64)
        axes.bar(places, heights, 0.9 * width, color=colour, label=name)
    axes.axhline(1, color=GREY, linewidth=1, linestyle="--")
    axes.set_xticks(range(len(tasks)), tasks)
    figure.legend(loc="outside lower center", frameon=False, fontsize=SMALL, ncols=2)
    return figure
