"""Figures of the experiment: tokens at the same loss, generated texts along training, accuracy and operations."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullFormatter

from experiments.training_trajectories.behaviour import OPTIONS, Behaviour
from experiments.training_trajectories.setting import Trained
from ntkft.plots.style import BLUE, GREY, ORANGE, SERIES, SMALL, new_axes, new_figure, new_grid


def tokens_over_loss(trained: Trained, between: Float[np.ndarray, "c c"], start: float) -> Figure:
    """Correlation of tokens' perplexities over the difference in loss, for all pairs of checkpoints after `start`."""
    figure, axes = new_axes(
        f"Are two checkpoints alike on {len(next(iter(trained.tables.values()))):,} tokens?",
        "difference of held-out loss, nats per token",
        "Spearman of tokens' perplexities",
    )
    found = [each for mine in trained.sizes.values() for each in mine]
    size, loss = np.array([each.size for each in found]), np.array([each.loss for each in found])
    late = np.array([each.step for each in found]) >= trained.steps[trained.first(start)]
    rows, columns = np.triu_indices(len(found), k=1)
    pairs = late[rows] & late[columns]
    alike = size[rows] == size[columns]
    for chosen, mark, colour, label in ((alike, "o", BLUE, "one size"), (~alike, "x", ORANGE, "two sizes")):
        some = pairs & chosen
        gaps = np.abs(loss[rows] - loss[columns])[some]
        axes.plot(gaps, between[rows, columns][some], mark, color=colour, markersize=4, label=label)
    axes.legend(frameon=False, fontsize=SMALL)
    return figure


def text_perplexity(curves: Mapping[str, Mapping[str, list[float]]], trained: Trained) -> Figure:
    """Perplexity of the texts of each interpolation at every checkpoint; curves: log-likelihoods by size and text."""
    smallest, *_, largest = trained.sizes
    figure, grid = new_grid(f"Texts from between {smallest} (small) and {largest} (large)", 2, 2)
    panels = [axes for row in grid for axes in row]
    names = list(next(iter(curves.values())))
    for axes, name in zip(panels, names, strict=True):
        axes.set_title(name, fontsize=SMALL, loc="left")
        for size, colour in zip(trained.sizes, SERIES, strict=False):
            axes.loglog(_visible(trained.steps), np.exp(-np.asarray(curves[size][name])), color=colour,
                        linewidth=1.5, label=size)  # fmt: skip
        _plain(axes.yaxis)
    for row in grid:
        row[0].set_ylabel("perplexity", fontsize=SMALL)
    for axes in grid[-1]:
        axes.set_xlabel("step (left end: 0)", fontsize=SMALL)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=SMALL,
                  ncols=4)  # fmt: skip
    return figure


def accuracy_and_operations(found: Behaviour, trained: Trained) -> Figure:
    """Above, cloze accuracy over perplexity; below, the operations that it took to get there."""
    figure, (above, below) = new_figure("What perplexity predicts, and what it costs", "held-out perplexity", 3.2, 2.6)
    sizes = np.array(found.size)
    for size, colour in zip(trained.sizes, SERIES, strict=False):
        mine = sizes == size
        above.plot(found.perplexity[mine], 100 * found.accuracy[mine], "o", color=colour, markersize=4, label=size)
        operations = [each.flops for each in trained.sizes[size]]
        below.plot(found.perplexity[mine][1:], operations[1:], "o-", color=colour, markersize=3.5, linewidth=1.5)
    ends = np.array([found.perplexity.min(), found.perplexity[found.late].max()])
    label = f"after the warm-up, R² {found.late_fit.r_squared:.2f}"
    line = 100 * (found.late_fit.intercept + found.late_fit.slope * np.log(ends))
    above.plot(ends, line, color=GREY, linewidth=1, label=label)
    above.axhline(100 / OPTIONS, color=GREY, linestyle="--", linewidth=1, label="chance")
    above.set_ylabel("cloze accuracy, %")
    below.set_ylabel("training operations")
    below.loglog()
    _plain(below.xaxis, few=True)
    figure.legend(loc="outside lower center", frameon=False, fontsize=SMALL, ncols=3)
    return figure


def _plain(axis: Axis, *, few: bool = False) -> None:
    """Numbers beside a short logarithmic axis as they are spoken; few: powers of ten alone."""
    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(NullFormatter() if few else LogFormatter(minor_thresholds=(2, 0.5)))
    axis.set_tick_params(which="minor", labelsize=SMALL)


def _visible(steps: list[int]) -> list[float]:
    """Step 0 half a step before the first, on a logarithmic axis."""
    return [max(step, 0.5) for step in steps]
