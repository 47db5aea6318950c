"""Figures of head tuning on hidden Markov models: excess and total risk over the width of the representation."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntkft.hmm import HeadRisk, SimulatedRisk
from ntkft.plots.style import BLUE, GREEN, GREY, ORANGE, RED, SMALL, new_figure


def risk_over_width(theory: Sequence[HeadRisk], simulated: Sequence[SimulatedRisk], model: str) -> Figure:
    """Excess risk with its parts, and total risk below, over p on log axes; lines are theory, points Monte Carlo.

    theory: one n and one penalty, by ascending p; the lines break where the risk is infinite. simulated: bars are two
    standard errors; points of the total risk are drawn where `theory` has their width, whose noise they take. A star is
    the lowest total risk below p = n, the bottom of the ordinary U. model: its constants, for the title.
    """
    n = theory[0].n
    penalty = f", λ = {theory[0].ridge:g}" if theory[0].ridge else ""
    figure, (upper, lower) = new_figure(
        f"Head tuning on n = {n} examples{penalty}\n{model}", "width p of the representation", 3.2, 2.6
    )
    p, noise = np.array([risk.p for risk in theory]), np.array([risk.noise for risk in theory])
    for axes in (upper, lower):
        axes.axvline(n, color=RED, linewidth=1, linestyle="--", label=f"p = n = {n}")
    excess, bias = _drawn([risk.excess for risk in theory]), _drawn([risk.bias for risk in theory])
    upper.plot(p, excess, color=BLUE, linewidth=2.0, label="excess risk, theory")
    upper.plot(p, _drawn([risk.variance for risk in theory]), "--", color=ORANGE, linewidth=1.4, label="its variance")
    # A bias of rounding size must not take up the axis.
    lowest = np.nanmin(excess) / 3
    if np.any(bias > lowest):
        upper.plot(p, bias, "--", color=GREEN, linewidth=1.4, label="its squared bias")
    total = _drawn([risk.total for risk in theory])
    lower.plot(p, total, color=BLUE, linewidth=2.0, label="total risk, theory")
    lower.plot(p, noise, color=GREY, linewidth=1.2, label="noise tr Ω(p)")
    known = dict(zip(p.tolist(), noise.tolist(), strict=True))
    _points(upper, simulated, np.zeros(len(simulated)))
    beside = [each for each in simulated if each.p in known]
    _points(lower, beside, np.array([known[each.p] for each in beside]))
    classical = np.flatnonzero((p < n) & np.isfinite(total))
    if classical.size:
        best = classical[np.argmin(total[classical])]
        lower.plot(p[best], total[best], "*", color="black", markersize=10, label=f"lowest below n: p = {p[best]}")
    for axes, name in ((upper, "excess risk"), (lower, "total risk")):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylabel(name)
    upper.set_ylim(bottom=lowest)
    figure.legend(*_once(upper, lower), loc="outside lower center", frameon=False, fontsize=SMALL, ncols=2)
    return figure


def _drawn(values: Sequence[float]) -> np.ndarray:
    """Values on a log axis: a gap where there is nothing to draw."""
    array = np.asarray(values, np.float64)
    return np.where(np.isfinite(array) & (array > 0), array, np.nan)


def _points(axes: Axes, simulated: Sequence[SimulatedRisk], above: np.ndarray) -> None:
    if simulated:
        axes.errorbar(
            [each.p for each in simulated],
            above + np.array([each.excess for each in simulated]),
            2 * np.array([each.standard_error for each in simulated]),
            fmt="o", color="black", markersize=4, capsize=3, label="Monte Carlo ± 2 s.e.",
        )  # fmt: skip


def _once(*several: Axes) -> tuple[list, list[str]]:
    """Handles and labels of all axes, each label once."""
    found = {label: handle for axes in several for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    return list(found.values()), list(found)
