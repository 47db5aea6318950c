"""Learning curves of AdamW: the risk on all training examples, predicted from smaller sets and from kernels.

Predictions are made of risks on validation examples and judged by the risk on test examples, each in units of what
predicting the mean has there.
"""

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
from jaxtyping import Float

from experiments.ntk_selection.claims import Record, spearman
from experiments.ntk_selection.runs import best
from experiments.ntk_selection.setting import Setting
from ntkft.scaling import LossCurve, fit_kernel_law, loss_curve, select
from ntkft.scaling.selection import Selector

KERNEL, WORTH, BRIDGE = "kernel, no curve", "kernel law, w = 1/F", "kernel law, w = F"
SCORES_ONLY = ("size",)
"""Of the selectors, those whose scores are not losses."""


def curves_of(records: Sequence[Record], setting: Setting) -> tuple[list[LossCurve], Float[np.ndarray, " c"]]:
    """Validation risk of every checkpoint of a task at 0 and at the smaller sets, and the true risk on all examples."""
    curves, truth = [], []
    for record in records:
        validation, last = record["unit"]["validation"], record["adamw"][str(setting.rate)]
        runs = [record["curve"][str(n)] for n, _ in setting.points]
        losses = [last["validation"][0], *(run["validation"][best(run)] for run in runs)]
        sizes = [0, *(n for n, _ in setting.points)]
        name = f"{record['size']} at {record['step']}"
        curves.append(loss_curve(name, sizes, np.array(losses) / validation, record["parameters"]))
        truth.append(last["test"][best(last)] / record["unit"]["test"])
    return curves, np.array(truth)


def predictions(records: Sequence[Record], setting: Setting) -> dict[str, Float[np.ndarray, " c"]]:
    """Method → risk predicted for all training examples (a score alone for `SCORES_ONLY`).

    A method whose law the curves do not determine for every checkpoint is not there: the vanilla law, of four numbers,
    on three points.
    """
    curves, _ = curves_of(records, setting)
    budget, target = setting.points[-1][0], setting.size["train"]
    left = np.array([record["kernel"]["left"] for record in records])
    points = len(setting.points)
    found = {
        KERNEL: np.array([min(record["kernel"]["curve"]) / record["unit"]["validation"] for record in records]),
        WORTH: fit_kernel_law(curves, 1 / left, points=points).at(target),
        BRIDGE: fit_kernel_law(curves, left, points=points).at(target),
    }
    for method in get_args(Selector):
        found[method] = select(curves, method=method, budget=budget, target=target).scores
    return {name: values for name, values in found.items() if np.all(np.isfinite(values))}


def judged(records: Mapping[str, Sequence[Record]], setting: Setting) -> dict[str, float]:
    """Task → its cells to log-RMSD and Spearman of every method."""
    results: dict[str, float] = {}
    for task, cells in records.items():
        truth = curves_of(cells, setting)[1]
        for method, values in predictions(cells, setting).items():
            if method not in SCORES_ONLY:
                off = np.log(values) - np.log(truth)
                results[f"{task} curve, {method}: log-RMSD"] = float(np.sqrt(np.mean(off**2)))
            if np.ptp(values) > 0:
                results[f"{task} curve, {method}: Spearman"] = spearman(values, truth)
    return results
