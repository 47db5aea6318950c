"""Figures of the experiment: error over loss by corpus, thresholds by task, and claims on points of a known law."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from experiments.emergence_from_loss.testbed import CORPORA
from ntkft.emergence import Exponential, Threshold
from ntkft.plots.style import BLUE, GREEN, GREY, ORANGE, SMALL, new_axes

COLOURS = dict(zip(CORPORA, (BLUE, ORANGE, GREEN), strict=True))


def error_over_loss(points: Mapping[str, tuple[np.ndarray, np.ndarray]], fits: Mapping[str, Exponential]) -> Figure:
    """Mean error on the 17 tasks over loss on C4's validation set, and the exponential fit of each corpus."""
    figure, axes = new_axes("Mean error on 17 tasks, 104 models", "loss on C4 (validation)", "1 − mean accuracy")
    for corpus, (losses, errors) in points.items():
        fit, at = fits[corpus], np.linspace(losses.min(), losses.max(), 200)
        axes.plot(losses, errors, "o", color=COLOURS[corpus], markersize=3.5)
        label = (
            f"{CORPORA[corpus]}: {fit.limit:.3f} − {fit.scale:.2f} e$^{{−{fit.rate:.3f} L}}$, R² {fit.r_squared:.3f}"
        )
        axes.plot(at, fit.at(at), color=COLOURS[corpus], linewidth=1.4, label=label)
    axes.legend(frameon=False, fontsize=SMALL, loc="lower right")
    return figure


def thresholds_by_task(found: Mapping[tuple[str, str], Threshold]) -> Figure:
    """η and interval of every task with a claim in some corpus, lowest loss at the top."""
    claims = {
        key: (result.eta, result.interval)
        for key, result in found.items()
        if result.eta is not None and result.interval is not None
    }
    mean = {task: np.mean([eta for (name, _), (eta, _) in claims.items() if name == task]) for task, _ in claims}
    tasks = sorted(mean, key=lambda task: -mean[task])
    figure, axes = new_axes("Where tasks leave chance", "η, loss on C4 (95 % interval)", "",
                            height=1.6 + 0.32 * len(tasks))  # fmt: skip
    for shift, (corpus, name) in zip((0.22, 0.0, -0.22), CORPORA.items(), strict=True):
        mine = [(tasks.index(task) + shift, *claim) for (task, other), claim in claims.items() if other == corpus]
        place, etas = np.array([m[0] for m in mine]), np.array([m[1] for m in mine])
        ends = np.array([m[2] for m in mine]).reshape(-1, 2)
        axes.hlines(place, ends[:, 0], ends[:, 1], color=COLOURS[corpus], linewidth=1.4)
        axes.plot(etas, place, "o", color=COLOURS[corpus], markersize=4, label=name)
    axes.set_yticks(range(len(tasks)), tasks, fontsize=SMALL)
    figure.legend(loc="outside lower center", frameon=False, fontsize=SMALL, ncols=3)
    return figure


def claims_by_law(studies: Mapping[str, Mapping[str, float]], seeds: int) -> Figure:
    """Share of the seeds with a claim, and with a lower AIC of the hinge, for points of each law."""
    figure, axes = new_axes("Claims of a threshold", f"% of {seeds} seeds", "",
                            height=1.5 + 0.3 * len(studies))  # fmt: skip
    place = np.arange(len(studies))[::-1]
    for key, label, mark, colour in (
        ("AIC below the line's, %", "AIC below the line's", "o", GREY),
        ("claimed, %", "threshold claimed", "o", BLUE),
    ):
        axes.plot([study[key] for study in studies.values()], place, mark, color=colour, markersize=6, label=label)
    axes.axvline(5, color=ORANGE, linewidth=1, linestyle="--", label="5 %")
    axes.set_yticks(place, list(studies), fontsize=SMALL)
    axes.set_xlim(-3, 103)
    figure.legend(loc="outside lower center", frameon=False, fontsize=SMALL, ncols=3)
    return figure
