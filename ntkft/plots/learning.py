"""Figures of learning: predicted beside real over epochs, and risk over sample size with the stopping times marked."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ntkft.dynamics import RiskSurface, over_seeds
from ntkft.finetuning import FinetuneResult
from ntkft.plots.style import BLUE, GREY, ORANGE, SERIES, new_axes


def learning_curve(
    epochs: np.ndarray, predicted: Mapping[str, np.ndarray], real: FinetuneResult | None, stops: Mapping[str, float]
) -> Figure:
    """Mean squared error over epochs on training and test set: lines are predictions, points really happened."""
    title = "Predicted and real learning curve" if real is not None else "Predicted learning curve"
    figure, axes = new_axes(title, "epoch of full-batch gradient descent", "mean squared error")
    for name, colour in (("train", ORANGE), ("test", BLUE)):
        axes.plot(epochs, predicted[name], color=colour, linewidth=1.8, label=f"{name}, predicted")
        if real is not None:
            curve = real.curves[name]
            axes.plot(curve.epochs, curve.mse, "o", color=colour, markersize=4, label=f"{name}, real")
    axes.set_xlim(0, epochs[-1])
    axes.set_ylim(bottom=0)
    _mark(axes, stops, epochs[-1])
    axes.legend(frameon=False, fontsize=8.5, loc="center right")
    return figure


def risk_over_n(surface: RiskSurface, stops: Mapping[str, float], real: Mapping[int, float]) -> Figure:
    """Predicted test risk against n, when stopped by each rule; `real` holds measured risks by n at the last epoch."""
    figure, axes = new_axes("Risk against sample size", "training examples n", "test mean squared error")
    sizes, last = np.asarray(surface.sizes), surface.epochs[-1]
    chosen = {"before training": 0.0} | {name: stop for name, stop in stops.items() if np.isfinite(stop)}
    for colour, (name, stop) in zip(SERIES * 2, chosen.items(), strict=False):
        epoch = min(round(stop), last)
        column = surface.epochs.index(epoch)
        label = f"{name} (epoch {epoch}{'+' if stop > last else ''})" if epoch else name
        axes.plot(sizes, surface.test_mse[:, :, column].mean(axis=0), "o-", color=colour, markersize=3.5, label=label)
    if len(surface.seeds) > 1:
        final = over_seeds(surface.test_mse[:, :, -1], level=0.9)
        axes.fill_between(sizes, final.low, final.high, color=GREY, alpha=0.2, label=f"90 % over seeds, epoch {last}")
    if real:
        axes.plot(list(real), list(real.values()), "*", color="black", markersize=11, label=f"real, epoch {last}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=7.5, ncols=2)
    return figure


def _mark(axes, stops: Mapping[str, float], last: float) -> None:
    """Stopping times as labelled vertical lines; those beyond the axis are listed with an arrow at its end."""
    top = axes.get_ylim()[1]
    for height, (name, stop) in enumerate(sorted(stops.items(), key=lambda item: item[1])):
        position = min(stop, last)
        text = f"{name}: {stop:.0f}" if stop <= last else f"{name}: {stop:.0f} →"
        if stop <= last:
            axes.axvline(position, color=GREY, linewidth=0.8, linestyle=":")
        side = "left" if position < 0.6 * last else "right"
        axes.annotate(
            text, (position, top * (0.97 - 0.055 * height)), fontsize=7, color="#444", ha=side,
            xytext=(3 if side == "left" else -3, 0), textcoords="offset points",
        )  # fmt: skip
