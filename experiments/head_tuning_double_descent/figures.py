"""Figures of the experiment: what the best penalty does to the two descents, and errors over ranks and examples."""

import numpy as np
from matplotlib.figure import Figure

from ntkft.hmm import HeadRisk
from ntkft.plots.style import BLUE, GREY, ORANGE, RED, SERIES, SMALL, new_axes, new_figure

ROUNDING = 1e-12
"""Relative squared errors below this are those of float64 arithmetic."""


def penalties(curve: list[HeadRisk], tuned: list[HeadRisk]) -> Figure:
    """Excess and total risk over p, with the head of least norm and with the best penalty of each width."""
    n = curve[0].n
    figure, (upper, lower) = new_figure("With the best penalty", "width p of the representation", 2.8, 2.6)
    for axes, name in ((upper, "excess"), (lower, "total")):
        for risks, colour, label in ((curve, BLUE, "least norm"), (tuned, ORANGE, "best penalty for each width")):
            values = np.array([getattr(risk, name) for risk in risks])
            values[~np.isfinite(values)] = np.nan
            axes.loglog([risk.p for risk in risks], values, color=colour, linewidth=1.8, label=label)
        axes.axvline(n, color=RED, linewidth=1, linestyle="--", label=f"p = n = {n}")
        axes.set_ylabel(f"{name} risk")
    noise = [risk.noise for risk in curve]
    (drawn,) = lower.plot([risk.p for risk in curve], noise, color=GREY, linewidth=1.2, label="noise tr Ω(p)")
    lower.legend(handles=[drawn], frameon=False, fontsize=SMALL, loc="upper left")
    upper.legend(frameon=False, fontsize=SMALL)
    return figure


def ranks(rows: list[dict[str, float]]) -> Figure:
    """Relative test error of heads on token probabilities over examples, one line for each rank of the emissions.

    Errors of rounding size leave the figure at the bottom.
    """
    title = "Reading the state from token probabilities"
    figure, axes = new_axes(title, "training examples n", "relative test error, median", height=4.6)
    for rank, colour in zip(sorted({row["rank"] for row in rows}, reverse=True), SERIES, strict=False):
        some = [row for row in rows if row["rank"] == rank]
        sizes, errors = [row["n"] for row in some], [row["error"] for row in some]
        exact = [n for n, error in zip(sizes, errors, strict=True) if error < ROUNDING]
        label = f"rank {rank:.0f} of the emissions" + (f": exact from n = {exact[0]:.0f}" if exact else "")
        axes.loglog(sizes, errors, "o-", color=colour, markersize=4, label=label)
    axes.set_ylim(bottom=1e-3)
    figure.legend(loc="outside lower center", frameon=False, fontsize=SMALL)
    return figure
