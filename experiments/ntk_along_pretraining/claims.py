"""What is claimed, as numbers made from the records of all checkpoints and tasks."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float

from experiments.ntk_along_pretraining.cells import kernel_distance
from experiments.ntk_along_pretraining.setting import Setting
from ntkft.trajectories import perplexity_predicts

OF_THE_WHOLE = {
    "risk": "predicted risk",
    "alignment": "alignment",
    "over_chance": "alignment over chance",
    "leading": "target energy in the leading eigenvectors",
    "decay": "decay exponent",
    "effective_dimension": "effective dimension",
    "participation_ratio": "participation ratio",
}
QUANTITIES = OF_THE_WHOLE | {"head_risk": "predicted risk, head alone"}
"""Columns of a row that are held against perplexity, with their names; all but the last are of the whole kernel."""


def rows_of(
    records: Sequence[Mapping[str, Any]], kernels: Sequence[Float[np.ndarray, "N n"]], task: str
) -> list[dict[str, Any]]:
    """A row for each checkpoint of one size on one task, in the order of steps; kernels: of all parameters.

    to_final, to_next: `kernel_distance` to the last kernel, and to that of the next checkpoint (None for the last)
    """
    steps = [kernel_distance(one, after) for one, after in pairwise(kernels)]
    return [
        {
            "task": task,
            **{name: record[name] for name in ("size", "step", "loss", "perplexity")},
            **{
                name: record["all"][name]
                for name in (*OF_THE_WHOLE, "accuracy", "epoch", "trace", "common", "above_floor")
            },
            "largest": record["all"]["eigenvalues"][0],
            "head_risk": record["head"]["risk"],
            "head_accuracy": record["head"]["accuracy"],
            "to_final": kernel_distance(kernel, kernels[-1]),
            "to_next": to_next,
        }
        for record, kernel, to_next in zip(records, kernels, [*steps, None], strict=True)
    ]


def claims(rows: Sequence[Mapping[str, Any]], setting: Setting) -> dict[str, float]:
    """What `expected.toml` is compared with. rows: of all tasks and sizes, each size in the order of its steps."""
    results: dict[str, float] = {}
    for task, _ in setting.tasks:
        mine = [row for row in rows if row["task"] == task]
        found = against_perplexity(mine) | along_training(mine, setting)
        results |= {f"{task}: {name}": value for name, value in found.items()}
        late = against_perplexity([row for row in mine if row["step"] >= setting.turn])
        results |= {f"{task}, from step {setting.turn} on: {name}": value for name, value in late.items()}
        results |= {f"{task}: {name}": value for name, value in at_the_turn(mine).items()}
    return {"checkpoints × tasks": float(len(rows))} | results


def against_perplexity(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Rank correlation of every quantity with perplexity, over all sizes and within them; what the size adds to R²."""
    sizes, names = by_size(rows), [row["size"] for row in rows]
    results: dict[str, float] = {}
    for name, title in QUANTITIES.items():
        perplexity, values = columns(rows, "perplexity", name)
        fit = perplexity_predicts(perplexity, values, names if len(sizes) > 1 else None)
        within = [spearman(*columns(some, "perplexity", name)) for some in sizes.values()]
        results[f"{title}, Spearman with perplexity"] = fit.spearman
        results[f"{title}, Spearman with perplexity, lowest of the sizes"] = min(within)
        results[f"{title}, Spearman with perplexity, highest of the sizes"] = max(within)
        results[f"{title}, R² of log perplexity"] = fit.r_squared
        if fit.sizes is not None:
            results[f"{title}, R² that sizes add"] = fit.sizes.extra
    whole, head, above_floor = columns(rows, "risk", "head_risk", "above_floor")
    results["eigenvalues above rounding, fewest of the checkpoints"] = float(above_floor.min())
    results["predicted risk below that of the head alone, % of checkpoints"] = 100 * float(np.mean(whole < head))
    return results


def along_training(rows: Sequence[Mapping[str, Any]], setting: Setting) -> dict[str, float]:
    """Alignment and the way that kernel and loss have still to go, over the steps of each size."""
    aligned, nearer, gained, ratios = [], [], [], []
    for some in by_size(rows).values():
        step, loss, alignment, left = columns(some, "step", "loss", "alignment", "to_final")
        aligned.append(spearman(step, alignment))
        nearer.append(spearman(step, left))
        gained.append(alignment[-1] - alignment[0])
        kernel, losses = (settles(step, way, setting.settled) for way in (left, loss - loss[-1]))
        ratios.append(kernel / losses)
    return {
        "alignment, Spearman with step, lowest of the sizes": min(aligned),
        "alignment, last minus first, smallest of the sizes": float(min(gained)),
        "distance to the last kernel, Spearman with step, highest of the sizes": max(nearer),
        "step at which the kernel has settled / the loss, median of the sizes": float(np.median(ratios)),
    }


def at_the_turn(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Where the spectrum of each size is steepest: perplexity, exponent, and what it has come down to at the end."""
    steepest = [max(some, key=lambda row: row["decay"]) for some in by_size(rows).values()]
    first, last = ([some[place] for some in by_size(rows).values()] for place in (0, -1))
    return {
        "perplexity where the decay exponent is largest, lowest of the sizes": min(
            row["perplexity"] for row in steepest
        ),
        "perplexity where the decay exponent is largest, highest of the sizes": max(
            row["perplexity"] for row in steepest
        ),
        "largest decay exponent, lowest of the sizes": min(row["decay"] for row in steepest),
        "decay exponent before training, highest of the sizes": max(row["decay"] for row in first),
        "decay exponent at the end, lowest of the sizes": min(row["decay"] for row in last),
        "decay exponent at the end, highest of the sizes": max(row["decay"] for row in last),
    }


def settles(step: Float[np.ndarray, " s"], left: Float[np.ndarray, " s"], share: float) -> float:
    """The first step from which on at most `share` of the first value is left; the last value is 0."""
    beyond = np.flatnonzero(left > share * left[0])
    return float(step[beyond[-1] + 1]) if beyond.size else float(step[0])


def by_size(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows of each size."""
    return {size: [row for row in rows if row["size"] == size] for size in dict.fromkeys(row["size"] for row in rows)}


def columns(rows: Sequence[Mapping[str, Any]], *names: str) -> tuple[Float[np.ndarray, " s"], ...]:
    """Columns of rows, as numbers."""
    return tuple(np.array([row[name] for row in rows], np.float64) for name in names)


def spearman(x: Float[np.ndarray, " s"], y: Float[np.ndarray, " s"]) -> float:
    """Rank correlation, a rational number, without the rounding of its last digits."""
    return round(float(np.corrcoef(scipy.stats.rankdata(x), scipy.stats.rankdata(y))[0, 1]), 12)
