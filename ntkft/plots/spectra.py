"""Figures of a spectrum: its decay with fits and floor, its parameter groups, and where the target lies in it."""

import numpy as np
from matplotlib.figure import Figure

from ntkft.plots.style import BLUE, GREEN, GREY, ORANGE, RED, SERIES, SMALL, new_axes
from ntkft.spectra import Alignment, DecayFit, DecayInterval, Spectrum


def eigenvalue_decay(spectrum: Spectrum, fit: DecayFit, interval: DecayInterval | None) -> Figure:
    """Eigenvalues over their index on log axes, the fitted lines over their window, and the numerical floor."""
    figure, axes = new_axes("Eigenvalue decay of the kernel", "index k", "eigenvalue λ̂ₖ of K = 𝕂/n", height=5.0)
    values = spectrum.eigenvalues
    index = np.arange(1, len(values) + 1)
    kept = values > spectrum.floor
    axes.loglog(index[kept], values[kept], "o", color=BLUE, markersize=3.5, label=f"eigenvalues (n = {spectrum.n})")
    first, last = fit.window
    axes.axvspan(first, last, color="#eceff5", zorder=0, label=f"fitted window, k = {first} … {last}")
    k = np.arange(first, last + 1)
    spread = "" if interval is None else _spread(interval)
    for line, colour, label in (
        (fit.with_intercept, ORANGE, f"k$^{{−2β}}$, β = {fit.with_intercept.rate:.2f}{spread}"),
        (fit.through_origin, GREEN, f"k$^{{−2β}}$ through λ̂₁, β = {fit.through_origin.rate:.2f}"),
        (fit.exponential, GREY, f"exponential, rate {fit.exponential.rate:.3f}"),
    ):
        axes.loglog(k, line.at(k), color=colour, linewidth=1.6, label=label)
    axes.axhline(spectrum.floor, color=RED, linewidth=1, linestyle="--", label="numerical floor")
    figure.legend(loc="outside lower center", frameon=False, fontsize=SMALL)
    return figure


def group_spectra(spectrum: Spectrum) -> Figure:
    """Eigenvalues of each parameter group's own kernel; together the kernels sum to the total."""
    figure, axes = new_axes("Spectrum of each parameter group", "index k", "eigenvalue of its kernel", height=5.4)
    ranked = sorted(spectrum.groups.items(), key=lambda item: -item[1].sum())
    total = spectrum.eigenvalues.sum()
    index = np.arange(1, len(spectrum.eigenvalues) + 1)
    axes.loglog(
        index, _above(spectrum.eigenvalues, spectrum.floor), color="black", linewidth=1.8, label="all parameters"
    )
    for colour, (name, values) in zip(SERIES * 3, ranked, strict=False):
        if values.sum() > 0:
            visible = _above(values, spectrum.floor)
            axes.loglog(index, visible, color=colour, linewidth=1.3, label=f"{name} ({values.sum() / total:.1%})")
    axes.set_ylim(bottom=spectrum.floor)
    figure.legend(
        loc="outside lower center", frameon=False, fontsize=SMALL, ncols=3,
        title="share of the trace", title_fontsize=SMALL,
    )  # fmt: skip
    return figure


def target_alignment(alignment: Alignment) -> Figure:
    """Cumulative energy of the residual over eigenvectors, beside what a random residual would have."""
    figure, axes = new_axes(
        "Where the residual y − f lies", "leading eigenvectors (share of all)", "cumulative energy of the residual"
    )
    share = np.arange(1, len(alignment.cumulative) + 1) / len(alignment.cumulative)
    axes.plot(np.r_[0, share], np.r_[0, alignment.cumulative], color=BLUE, linewidth=2, label="this task")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="no alignment")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(
        frameon=False, fontsize=SMALL, loc="lower right", title_fontsize=SMALL,
        title=f"kernel–target alignment {alignment.kernel_target:.3f}",
    )  # fmt: skip
    return figure


def _spread(interval: DecayInterval) -> str:
    low, high = interval.with_intercept
    return f" ({low:.2f}–{high:.2f} over subsamples of {interval.size})"


def _above(values: np.ndarray, floor: float) -> np.ndarray:
    return np.where(values > floor, values, np.nan)
