"""What is claimed, as numbers made from the records: who ranks checkpoints as fine-tuning does, and at which cost.

Risks are in units of what predicting the mean of the training targets has on the same examples: 1 is nothing learnt.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float

from experiments.ntk_selection.runs import best
from experiments.ntk_selection.setting import Setting
from ntkft.report.prediction import SETS

ADAMW, DESCENT = "AdamW", "gradient descent"
METHODS = {
    "kernel": "kernel, no fine-tuning",
    "alone": "kernel of the training examples alone",
    "probe": "kernel of the head: linear probe",
    "pretraining": "pretraining loss",
    "parameters": "number of parameters",
    "zeroshot": "validation risk before fine-tuning",
    "one epoch": "one epoch of AdamW",
    "validation": "fine-tuning itself, on validation examples",
}
"""Ways to rank checkpoints, the lowest score first; the last says what the examples allow, and costs everything."""

Record = Mapping[str, Any]
"""All of a cell: who it is, its unit of risk for each set, and the records of `runs`."""


def row(record: Record, setting: Setting) -> dict[str, Any]:
    """One cell: the scores of every method, and the real test risks by how it was fine-tuned.

    `AdamW`: at the rate and epoch that the validation examples choose, `gradient descent`: at the epoch. Where the
    latter is the judge, kernels choose among the epochs that it had: `kernel, gradient descent`.
    """
    kernel, alone, runs = record["kernel"], record["alone"], record["adamw"]
    train, validation, test = (record["unit"][name] for name in SETS)
    chosen = min(runs.values(), key=lambda run: run["validation"][best(run)])
    along = runs[str(setting.rate)]
    found = {
        **{name: record[name] for name in ("task", "size", "step")},
        "kernel": min(kernel["curve"]) / validation,
        key("kernel", DESCENT): min(kernel["curve"][: setting.checks[-1] + 1]) / validation,
        "alone": min(alone["curve"]) / train,
        key("alone", DESCENT): min(alone["curve"][: setting.checks[-1] + 1]) / train,
        "probe": kernel["head"] / validation,
        "pretraining": record["loss"],
        "parameters": -record["parameters"],
        "zeroshot": kernel["curve"][0] / validation,
        "one epoch": along["validation"][along["epochs"].index(1)] / validation,
        "validation": chosen["validation"][best(chosen)] / validation,
        ADAMW: chosen["test"][best(chosen)] / test,
    }
    if (run := record["descent"]) is not None:
        found[DESCENT] = run["test"][best(run)] / test
        found[key("validation", DESCENT)] = run["validation"][best(run)] / validation
    return found


def claims(records: Sequence[Record], rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What `expected.toml` is compared with."""
    results: dict[str, float] = {"cells": len(rows), f"cells, {DESCENT}": sum(DESCENT in each for each in rows)}
    for judge in (ADAMW, DESCENT):
        for method in METHODS:
            results |= {f"{judge}, {method}: {name}": value for name, value in agreement(rows, method, judge).items()}
    results["kernel before fine-tuning and outputs of the model: largest relative difference"] = max(
        abs(record["kernel"]["curve"][0] / run["validation"][0] - 1)
        for record in records
        for run in record["adamw"].values()
    )
    for judge in (ADAMW, DESCENT):
        predicted, real = key("kernel", judge), key("validation", judge)
        off = [each[predicted] / each[real] - 1 for each in rows if judge in each]
        if off:
            results[f"{judge}, lowest validation risk: predicted / real - 1, median, %"] = 100 * float(np.median(off))
            results[f"{judge}, lowest validation risk: median error, %"] = 100 * float(np.median(np.abs(off)))
    for judge, runs in (
        (ADAMW, [(record, list(record["adamw"].values())) for record in records]),
        (DESCENT, [(record, [record["descent"]]) for record in records if record["descent"] is not None]),
    ):
        real = [(record, run) for record, several in runs for run in several]
        for name, kind in (("kernels", "kernel"), ("kernels of training examples", "alone")):
            mine = [(record, record[kind]) for record, _ in runs]
            results |= {f"{name} / {judge}: {cost}": value for cost, value in ratios(mine, real).items()}
            for size in dict.fromkeys(record["size"] for record, _ in runs):
                some = ([(record, run) for record, run in both if record["size"] == size] for both in (mine, real))
                results[f"{name} / {judge}, {size}: operations"] = ratios(*some)["operations"]
    return results


def agreement(rows: Sequence[Mapping[str, Any]], method: str, judge: str) -> dict[str, float]:
    """How a method's scores agree with real risks.

    Spearman, mean over tasks: rank correlation over the checkpoints of each task; all cells: after each task's mean is
    taken from scores and risks. regret, %: by how much the real risk of the method's first choice exceeds the lowest,
    mean over tasks; equal first choices count alike. Those that are undefined, for scores all equal, are left out.
    """
    held = [each for each in rows if judge in each]
    name = key(method, judge)
    tasks = [[each for each in held if each["task"] == task] for task in dict.fromkeys(each["task"] for each in held)]
    scores = [np.array([each[name] for each in some], np.float64) for some in tasks]
    risks = [np.array([each[judge] for each in some]) for some in tasks]
    if not tasks or any(np.ptp(score) == 0 for score in scores):
        return {}
    within = [spearman(score, risk) for score, risk in zip(scores, risks, strict=True)]
    centred = [np.concatenate([values - values.mean() for values in both]) for both in (scores, risks)]
    return {
        "Spearman, mean over tasks": float(np.mean(within)),
        "Spearman, lowest of the tasks": min(within),
        "Spearman, all cells": spearman(*centred),
        "regret, %": 100 * float(np.mean([regret(score, risk) for score, risk in zip(scores, risks, strict=True)])),
    }


def key(method: str, judge: str) -> str:
    """Where a row has the score of a method; some depend on how fine-tuning is really done."""
    return f"{method}, {judge}" if judge == DESCENT and method in ("kernel", "alone", "validation") else method


def spearman(scores: Float[np.ndarray, " c"], risks: Float[np.ndarray, " c"]) -> float:
    """Rank correlation, equal values sharing their ranks; NaN for values all equal."""
    if np.ptp(scores) == 0 or np.ptp(risks) == 0:
        return float("nan")
    return float(np.corrcoef(scipy.stats.rankdata(scores), scipy.stats.rankdata(risks))[0, 1])


def regret(scores: Float[np.ndarray, " c"], risks: Float[np.ndarray, " c"]) -> float:
    """Real risk of the lowest score over the lowest real risk, minus 1; a mean over lowest scores that are equal."""
    return float(risks[scores == scores.min()].mean() / risks.min() - 1)


def ratios(mine: Sequence[tuple[Record, Record]], real: Sequence[tuple[Record, Record]]) -> dict[str, float]:
    """Costs of one kind of runs over those of another."""
    spent, by = costs(mine), costs(real)
    return {name: spent[name] / by[name] for name in spent}


def costs(runs: Iterable[tuple[Record, Record]]) -> dict[str, float]:
    """Total cost of runs (cell, record of the run), without looks at test examples.

    processor time, programs at hand: as if nothing had been compiled, from the run of each size, task and kind that was
    fastest for its operations: checkpoints of a size share programs, and the first compiles them
    """
    counted = [(f"{cell['task']} {cell['size']}", run) for cell, run in runs]
    speed: dict[str, float] = {}
    for kind, run in counted:
        speed[kind] = min(speed.get(kind, np.inf), run["cpu"] * run["judged"] / run["operations"])
    return {
        "processor time": sum(run["cpu"] * run["judged"] for _, run in counted),
        "processor time, programs at hand": sum(speed[kind] * run["operations"] for kind, run in counted),
        "operations": sum(run["operations"] for _, run in counted),
    }
