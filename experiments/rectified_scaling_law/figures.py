"""The pre-power phase: how steep measured losses fall on log axes, beside what either law says."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ntkft.plots.style import BLUE, GREEN, ORANGE, SMALL, new_figure
from ntkft.scaling import Fit, LossCurve, Rectified, Vanilla

Fitted = tuple[Sequence[LossCurve], Sequence[Fit[Rectified]], Sequence[Fit[Vanilla]]]
"""Curves of one table, D > 0 and at the same sizes, with both laws."""


def slopes(curves: Sequence[LossCurve | Rectified | Vanilla], sizes: np.ndarray) -> np.ndarray:
    """−Δ log L / Δ log D between neighbouring sizes, `[curves, sizes − 1]`; of laws as of measured losses."""
    losses = [curve.losses if isinstance(curve, LossCurve) else curve.at(sizes) for curve in curves]
    return -np.diff(np.log(losses), axis=1) / np.diff(np.log(sizes))


def pre_power_phase(tables: Mapping[str, Fitted]) -> Figure:
    """Mean slope over the models of each table, measured and by both laws, with the middle half of the measured."""
    figure, panels = new_figure("How fast losses fall", "training examples D", *[2.9] * len(tables))
    for axes, (name, (curves, rectified, vanilla)) in zip(panels, tables.items(), strict=True):
        sizes = curves[0].sizes
        middle = np.sqrt(sizes[1:] * sizes[:-1])
        measured = slopes(curves, sizes)
        axes.fill_between(middle, *np.quantile(measured, [0.25, 0.75], axis=0), color=BLUE, alpha=0.15, linewidth=0,
                          label="measured, middle half")  # fmt: skip
        axes.plot(middle, measured.mean(axis=0), "o", color=BLUE, markersize=4, label="measured, mean")
        for label, fits, colour, style in (
            ("rectified law, mean", rectified, GREEN, "-"),
            ("vanilla law, mean", vanilla, ORANGE, "--"),
        ):
            laws = [fit.law for fit in fits if fit.law is not None]
            axes.plot(middle, slopes(laws, sizes).mean(axis=0), style, color=colour, linewidth=1.6, label=label)
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("−Δ log L / Δ log D")
        axes.set_title(f"{name}, {len(curves)} models", loc="right", fontsize=SMALL)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=SMALL, ncols=2)
    return figure
