"""Figures of scores over loss: the hinge and its threshold beside the line and the smooth curve that rival it."""

import textwrap
from collections.abc import Mapping

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntkft._types import Array
from ntkft.emergence import Status, Threshold
from ntkft.plots.style import BLUE, GREEN, GREY, ORANGE, SMALL, new_axes, new_grid

Points = tuple[Num[Array, " n"], Num[Array, " n"], Threshold]
"""Losses, scores with chance at 0, and what was found in them."""

_COLUMNS = 3
_SHORT: dict[Status, str] = {
    "threshold": "threshold",
    "no threshold: a line does as well": "no threshold: line",
    "no threshold: a smooth curve does better": "no threshold: smooth",
    "not identified": "not identified",
}


def score_over_loss(losses: Num[Array, " n"], scores: Num[Array, " n"], found: Threshold, title: str) -> Figure:
    """Scores over loss with hinge and line, and η with its interval where it is claimed."""
    figure, axes = new_axes(textwrap.fill(title, 60), "loss", "score, chance at 0", height=4.6)
    _draw(axes, (losses, scores, found))
    figure.legend(loc="outside lower center", frameon=False, fontsize=SMALL, ncols=2, title=_verdict(found),
                  title_fontsize=SMALL)  # fmt: skip
    return figure


def scores_over_loss(groups: Mapping[str, Points], title: str) -> Figure:
    """The same for several groups, a panel for each, on one axis of losses."""
    rows = -(-len(groups) // _COLUMNS)
    figure, grid = new_grid(textwrap.fill(title, 80), rows, min(_COLUMNS, len(groups)))
    figure.set_size_inches(figure.get_figwidth(), 2.5 * rows + 1.1)
    panels = [axes for row in grid for axes in row]
    for axes, (name, points) in zip(panels, groups.items(), strict=False):
        _draw(axes, points)
        axes.set_title(f"{name}\n{_verdict(points[2])}", fontsize=SMALL, loc="left")
    for axes in panels[len(groups) :]:
        axes.remove()
    for row in grid:
        row[0].set_ylabel("score, chance at 0", fontsize=SMALL)
    for axes in panels[max(len(groups) - len(grid[0]), 0) : len(groups)]:
        axes.set_xlabel("loss", fontsize=SMALL)
        axes.tick_params(labelbottom=True)
    entries = {
        label: handle
        for axes in panels[: len(groups)]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", frameon=False, fontsize=SMALL, ncols=5)
    return figure


def _draw(axes: Axes, points: Points) -> None:
    losses, scores, found = points
    axes.axhline(0, color="black", linewidth=0.8)
    if found.eta is not None and found.interval is not None:
        axes.axvspan(*found.interval, color=ORANGE, alpha=0.15, linewidth=0, label=f"η, {found.level:.0%} interval")
        axes.axvline(found.eta, color=ORANGE, linewidth=1, linestyle=":")
    axes.plot(losses, scores, "o", color=BLUE, markersize=3.5, label="models")
    ends = np.array([np.min(losses), np.max(losses)])
    if found.line is not None:
        axes.plot(ends, found.line.at(ends), color=GREY, linewidth=1.4, linestyle="--", label="line")
    if found.smooth is not None:
        at = np.linspace(ends[0], ends[1], 100)
        axes.plot(at, found.smooth.at(at), color=GREEN, linewidth=1.4, label="exponential")
    if found.hinge is not None:
        at = np.array([ends[0], found.hinge.eta, ends[1]])
        axes.plot(at, found.hinge.at(at), color=ORANGE, linewidth=1.8, label="hinge")


def _verdict(found: Threshold) -> str:
    """What the figure says, in a line."""
    if found.delta_aic is None:
        return "not identified"
    numbers = f"ΔAIC {found.delta_aic:+.1f}"
    if found.eta is None or found.interval is None:
        return f"{_SHORT[found.status]} ({numbers})"
    return f"η = {found.eta:.2f} ({found.interval[0]:.2f}–{found.interval[1]:.2f}), {numbers}"
