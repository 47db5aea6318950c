"""Figures of training trajectories: shares of trends, perplexity of each group, tokens that show double descent."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullFormatter

from ntkft._types import Array
from ntkft.plots.style import BLUE, GREEN, GREY, ORANGE, RED, SMALL, new_axes, new_grid
from ntkft.trajectories import TRENDS, DoubleDescent

_COLOURS = dict(zip(TRENDS, (RED, BLUE, GREEN, GREY), strict=True))
_TICKS = 6
"""Checkpoints that are named below an axis, at most."""


def trend_fractions(fractions: Mapping[str, Mapping[str, float]]) -> Figure:
    """A bar for each model or text, by its name: the share of its tokens with each trend, in the order of `TRENDS`."""
    figure, axes = new_axes("Trends of tokens", "share of tokens", "", height=1.5 + 0.45 * len(fractions))
    left = np.zeros(len(fractions))
    for trend in TRENDS:
        shares = np.array([of[trend] for of in fractions.values()])
        axes.barh(range(len(fractions)), shares, 0.7, left=left, color=_COLOURS[trend], label=trend)
        for row, (start, share) in enumerate(zip(left, shares, strict=True)):
            if share > 0.08:  # narrower, and the number is wider than its part
                middle = start + share / 2
                axes.text(middle, row, f"{share:.0%}", ha="center", va="center", color="white", fontsize=SMALL)
        left += shares
    axes.set_yticks(range(len(fractions)), list(fractions))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1)
    figure.legend(loc="outside lower center", frameon=False, fontsize=SMALL, ncols=4)
    return figure


def group_perplexity(
    curves: Mapping[str, Float[np.ndarray, " s"]], counts: Mapping[str, int], checkpoints: Sequence[str], *, first: int
) -> Figure:
    """Geometric mean of the perplexity of every trend's tokens over checkpoints; the series begins at `first`.

    curves: as of `group_curves` over `TokenTrends.labels`; counts: tokens of each; checkpoints: names, `[s]`
    """
    figure, axes = new_axes("Perplexity of tokens by trend", "checkpoint", "geometric mean perplexity", height=4.6)
    for trend in TRENDS:
        if trend in curves:
            label = f"{trend} ({counts[trend]})"
            axes.semilogy(curves[trend], "o-", color=_COLOURS[trend], markersize=3.5, linewidth=1.6, label=label)
    _mark_start(axes, first)
    _name_checkpoints(axes, checkpoints, _TICKS)
    figure.legend(
        loc="outside lower center", frameon=False, fontsize=SMALL, ncols=2,
        title="trend (tokens)", title_fontsize=SMALL,
    )  # fmt: skip
    return figure


def double_descent_tokens(
    perplexities: Num[Array, "t s"],
    found: DoubleDescent,
    tokens: Sequence[str],
    checkpoints: Sequence[str],
    *,
    first: int,
    examples: int = 6,
) -> Figure:
    """The deepest double descents, with their minimum and maximum marked; deepest first, at most `examples`.

    perplexities: `[t, s]` from the first checkpoint of training on; found: of the columns from `first` on;
    tokens, checkpoints: names of rows and columns
    """
    ranked = np.argsort(-found.depth, kind="stable")[: min(examples, int(found.shows.sum()))]
    title = f"Double descent: {found.share:.1%} of tokens turn by more than {found.tolerance:g} in log perplexity"
    if not len(ranked):
        figure, axes = new_axes("Double descent", "checkpoint", "perplexity")
        axes.text(
            0.5, 0.5, title.removeprefix("Double descent: "), ha="center", fontsize=SMALL, transform=axes.transAxes
        )
        return figure
    columns = min(len(ranked), 2)
    rows = -(-len(ranked) // columns)
    figure, grid = new_grid(title.replace("tokens ", "tokens\n"), rows, columns)
    panels = [axes for row in grid for axes in row]
    for axes, row in zip(panels, ranked, strict=False):
        turns = first + np.array([found.minimum[row], found.maximum[row]])
        series = np.asarray(perplexities)[row]
        axes.semilogy(series, color=BLUE, linewidth=1.6)
        axes.semilogy(turns, series[turns], "o", color=ORANGE, markersize=5)
        name = repr(tokens[row])[1:-1]  # a line break is a token too
        axes.set_title(f"{name} (depth {found.depth[row]:.2f})", fontsize=SMALL, loc="left", parse_math=False)
        _mark_start(axes, first)
        _name_checkpoints(axes, checkpoints, _TICKS // 2)
    for axes in panels[len(ranked) :]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel("perplexity", fontsize=SMALL)
    for axes in panels[max(0, len(ranked) - columns) : len(ranked)]:
        axes.set_xlabel("checkpoint", fontsize=SMALL)
        axes.tick_params(labelbottom=True)
    return figure


def _mark_start(axes: Axes, first: int) -> None:
    if first > 0:
        axes.axvspan(-0.5, first - 0.5, color="#eceff5", zorder=0)
        axes.set_xlim(left=-0.5)


def _name_checkpoints(axes: Axes, checkpoints: Sequence[str], count: int) -> None:
    """Names below evenly spread checkpoints, the last included, and plain numbers beside a short log axis."""
    places = np.unique(np.linspace(0, len(checkpoints) - 1, min(count, len(checkpoints))).round().astype(int))
    axes.set_xticks(places, [str(checkpoints[place]) for place in places])
    axes.yaxis.set_major_formatter(LogFormatter())
    low, high = axes.get_ylim()
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)) if high < 30 * low else NullFormatter())
    axes.tick_params(which="minor", labelsize=SMALL)
