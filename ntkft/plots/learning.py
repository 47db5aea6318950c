"""Figures of learning: predicted beside real over epochs, and risk over sample size with the stopping times marked."""

import itertools
from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from jaxtyping import Float, Int, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntkft._errors import InputError
from ntkft._types import Array
from ntkft.dynamics import RiskSurface, over_seeds
from ntkft.finetuning import FinetuneResult
from ntkft.plots.style import BLUE, GREY, ORANGE, SERIES, SMALL, new_axes, new_figure

_ROW = 0.2
"""Inches for each stopping rule."""


def learning_curve(
    epochs: np.ndarray, predicted: Mapping[str, np.ndarray], real: FinetuneResult | None, stops: Mapping[str, float]
) -> Figure:
    """Mean squared error over epochs on training and test set: lines are predictions, points really happened.

    Below, on the same axis, when each rule stops; an arrow at the end means later, or never for an infinite one.
    Raises `InputError` for a real curve without squared errors, that of classes given as integers.
    """
    title = "Predicted and real learning curve" if real is not None else "Predicted learning curve"
    strip = [0.6 + _ROW * len(stops)] if stops else []
    figure, (axes, *below) = new_figure(title, "epoch of full-batch gradient descent", 3.6, *strip)
    axes.set_ylabel("mean squared error")
    for name, colour in (("train", ORANGE), ("test", BLUE)):
        axes.plot(epochs, predicted[name], color=colour, linewidth=1.8, label=f"{name}, predicted")
        if real is not None:
            curve = real.curves[name]
            if curve.mse is None:
                raise InputError(f"learning_curve: the real {name} curve has no squared error to draw; pass real=None")
            axes.plot(curve.epochs, curve.mse, "o", color=colour, markersize=4, label=f"{name}, real")
    axes.margins(x=0.02)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=SMALL, edgecolor="none")
    if stops:
        _mark(axes, below[0], stops, axes.dataLim.x1)
    return figure


def risk_over_n(surface: RiskSurface, stops: Mapping[str, float], real: Mapping[int, float]) -> Figure:
    """Predicted test risk against n, when stopped by each rule; `real` holds measured risks by n at the last epoch.

    surface.epochs: every epoch from 0, as `predict` records them; rules that stop later are drawn at the last. Rules
    that share an epoch share a line.
    """
    figure, axes = new_axes("Risk against sample size", "training examples n", "test mean squared error", height=5.4)
    sizes, last = np.asarray(surface.sizes), surface.epochs[-1]
    risk = surface.test_mse.mean(axis=0)
    axes.plot(sizes, risk[:, surface.epochs.index(0)], "--", color=GREY, linewidth=1.2, label="before training")
    for colour, (epoch, label) in zip(SERIES, _labels(stops, last).items(), strict=False):
        axes.plot(sizes, risk[:, surface.epochs.index(epoch)], "o-", color=colour, markersize=3.5, label=label)
    if len(surface.seeds) > 1:
        final = over_seeds(surface.test_mse[:, :, -1], level=0.9)
        axes.fill_between(sizes, final.low, final.high, color=GREY, alpha=0.2, label=f"90 % over seeds, epoch {last}")
    if real:
        axes.plot(list(real), list(real.values()), "*", color="black", markersize=11, label=f"real, epoch {last}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", frameon=False, fontsize=SMALL, ncols=2)
    return figure


def risk_over_epochs(
    sizes: Sequence[int],
    epochs: Int[np.ndarray, " s"],
    risk: Float[np.ndarray, "seeds sizes s"],
    real: Mapping[int, tuple[Num[Array, " r"], Num[Array, " r"]]],
) -> Figure:
    """The whole surface: predicted test risk over epochs for every n, mean and range over seeds, a star at the lowest.

    epochs: ascending; risk: such as `RiskSurface.test_mse`; real: n → epochs and measured risks, drawn as points.
    """
    seeds = f", {len(risk)} seeds" if len(risk) > 1 else ""
    figure, axes = new_axes(f"Predicted risk over epochs and sample size{seeds}", "epoch", "test mean squared error")
    for index, (size, colour) in enumerate(zip(sizes, itertools.cycle(SERIES), strict=False)):
        curve = risk[:, index].mean(axis=0)
        axes.plot(epochs, curve, color=colour, linewidth=1.6, label=f"n = {size}")
        if len(risk) > 1:
            low, high = risk[:, index].min(axis=0), risk[:, index].max(axis=0)
            axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
        best = int(np.argmin(curve))
        axes.plot(epochs[best], curve[best], "*", color=colour, markersize=10, clip_on=False)
        if size in real:
            axes.plot(*real[size], "o", color=colour, markersize=3, label=f"real, n = {size}")
    axes.margins(x=0.02)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", frameon=False, fontsize=SMALL, ncols=4)
    return figure


def _labels(stops: Mapping[str, float], last: int) -> dict[int, str]:
    """Epoch to draw → legend naming the rules that stop there, in the order of epochs."""
    rules: dict[int, list[str]] = {}
    for name, stop in sorted(stops.items(), key=lambda item: item[1]):
        rules.setdefault(last if stop > last else round(stop), []).append(name)
    later = " or later" if any(stop > last for stop in stops.values()) else ""
    return {
        epoch: fill(
            f"epoch {epoch}{later if epoch == last else ''}: {'; '.join(names)}", width=30, break_on_hyphens=False
        )
        for epoch, names in rules.items()
    }


def _mark(axes: Axes, strip: Axes, stops: Mapping[str, float], last: float) -> None:
    """Stopping times: dotted lines through the curves, and below them one row for each rule, the earliest on top."""
    for row, (name, stop) in enumerate(sorted(stops.items(), key=lambda item: item[1])):
        position, side = min(stop, last), 1 if stop < last / 2 else -1
        if stop <= last:
            axes.axvline(stop, color=GREY, linewidth=0.8, linestyle=":", zorder=1)
        strip.plot(position, -row, "o" if stop <= last else ">", color="#444", markersize=4)
        strip.annotate(
            f"{name}: {stop:.0f}" if np.isfinite(stop) else f"{name}: never",
            (position, -row),
            xytext=(6 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center_baseline",
            fontsize=SMALL,
        )
    strip.set_title("When each rule stops", loc="left", fontsize=SMALL)
    strip.set_yticks([])
    strip.set_ylim(0.6 - len(stops), 0.6)
    strip.spines["left"].set_visible(False)
