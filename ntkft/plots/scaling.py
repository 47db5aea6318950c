"""Figures of losses over training-set size: both laws on the curves, and what each selector makes of a budget."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from ntkft.plots.style import GREY, SERIES, SMALL, new_axes, new_figure
from ntkft.scaling import Fit, LossCurve, Rectified, Vanilla


def law_fits(
    curves: Sequence[LossCurve], rectified: Sequence[Fit[Rectified]], vanilla: Sequence[Fit[Vanilla]], title: str
) -> Figure:
    """Test losses over D > 0 on log axes, a colour for each of up to nine models, with both laws fitted to them.

    Knee D_l^{1/β} and steepest slope D* are marked on the rectified law where they lie among the sizes measured, for
    elsewhere the data do not say where they are; a law that was not identified is not drawn.
    """
    figure, axes = new_axes(title, "training examples D", "test loss", height=5.0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for colour, curve, law, rival in zip(SERIES, curves, rectified, vanilla, strict=False):
        tuned = curve.fine_tuned
        axes.plot(tuned.sizes, tuned.losses, "o", color=colour, markersize=3.5, label=curve.name)
        at = np.geomspace(tuned.sizes[0], tuned.sizes[-1], 200)
        if rival.law is not None:
            axes.plot(at, rival.law.at(at), color=colour, linewidth=1.2, linestyle="--", label="_vanilla")
        if law.law is not None:
            axes.plot(at, law.law.at(at), color=colour, linewidth=1.6, label="_rectified")
            for place, mark in ((law.law.knee, "D"), (law.law.steepest, "v")):
                if at[0] <= place <= at[-1]:
                    axes.plot(place, law.law.at(place), mark, color=colour, markersize=8, markeredgecolor="black")
    _plain_numbers(axes)
    names = axes.get_legend_handles_labels()[0]
    figure.legend(handles=[*names, *_key()], loc="outside lower center", frameon=False, fontsize=SMALL, ncols=2)
    return figure


def selection_by_budget(
    fractions: Sequence[float], correlations: Mapping[str, Mapping[str, Sequence[float]]]
) -> Figure:
    """PearCorr of every method over the budget as a fraction of all examples, a panel for each table.

    correlations: by table, then by method, as many as `fractions`; NaN leaves a gap; 1 is a perfect selector
    """
    figure, panels = new_figure(
        "How well selectors order the models", "budget / all examples", *[2.9] * len(correlations)
    )
    methods = list(dict.fromkeys(method for table in correlations.values() for method in table))
    colours = dict(zip(methods, SERIES, strict=False))
    for axes, (name, table) in zip(panels, correlations.items(), strict=True):
        axes.axhline(0, color="black", linewidth=0.8)
        for method, values in table.items():
            axes.plot(fractions, values, "o-", color=colours[method], markersize=3.5, linewidth=1.5, label=method)
        axes.set_xscale("log", base=2)
        axes.set_xticks(fractions, [str(Fraction(each).limit_denominator(10_000)) for each in fractions])
        axes.set_ylim(top=1.05)
        axes.set_ylabel(f"PearCorr, {name}")
    entries = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", frameon=False, fontsize=SMALL, ncols=4)
    return figure


def _key() -> list[Line2D]:
    """What lines and marks mean, whatever their colour."""
    return [
        Line2D([], [], color=GREY, linewidth=1.6, label="rectified law"),
        Line2D([], [], color=GREY, linewidth=1.2, linestyle="--", label="vanilla law"),
        Line2D([], [], color=GREY, linewidth=0, marker="D", markeredgecolor="black", label="knee D$_l^{1/β}$"),
        Line2D([], [], color=GREY, linewidth=0, marker="v", markeredgecolor="black", label="steepest slope D*"),
    ]


def _plain_numbers(axes: Axes) -> None:
    """Losses span less than a decade or two: 1, 2, 5 in plain numbers tell more than powers of ten."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
