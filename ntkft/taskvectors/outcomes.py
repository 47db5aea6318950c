"""What adding and negating task vectors does to the tasks, for predicted and for real combinations alike.

Classes as in `ntkft.dynamics.classification`. Mean squared errors are means over examples of the sum over outputs.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ntkft._errors import InputError
from ntkft.dynamics.classification import accuracy, decide
from ntkft.taskvectors.combination import Combination

Targets = Mapping[str, Float[np.ndarray, "m k"]]


@dataclass(frozen=True)
class Addition:
    """Several vectors in one model.

    single:     task → accuracy of θ_PT + c_i τ_i on task i
    multi:      task → accuracy of θ_PT + Σ_j c_j τ_j on task i
    """

    coefficients: Mapping[str, float]
    single: Mapping[str, float]
    multi: Mapping[str, float]

    @property
    def normalised(self) -> dict[str, float]:
        """Task → multi/single: 1 where the other tasks take nothing away. NaN where the single accuracy is zero."""
        return {name: self.multi[name] / own if own else float("nan") for name, own in self.single.items()}


@dataclass(frozen=True)
class Negation:
    """One vector taken away instead of added.

    pretrained, finetuned, negated: mean squared error at θ_PT, θ_PT + cτ and θ_PT − cτ
    linear_gap: 4c·mean((y − f_PT)·Jτ), what negated − finetuned is for the linearised model; from this combination's
                own difference (f(θ_PT + cτ) − f(θ_PT − cτ))/2 in place of cJτ
    """

    pretrained: float
    finetuned: float
    negated: float
    linear_gap: float

    @property
    def gap(self) -> float:
        """MSE(θ_PT − cτ) − MSE(θ_PT + cτ)."""
        return self.negated - self.finetuned


def addition(combination: Combination, targets: Targets, coefficients: Mapping[str, float]) -> Addition:
    """Accuracy on every task of its own vector alone and of all together.

    Cost: one evaluation more than there are tasks. Raises `InputError` for targets that are no classes, and for a task
    without a coefficient.
    Source: Ilharco et al. 2023, normalised accuracy; Sun & Raskutti 2026.
    """
    if missing := [name for name in targets if name not in coefficients]:
        raise InputError(f"addition: no coefficient for {', '.join(map(repr, missing))}; every task needs one")
    together = combination(coefficients)
    single = {name: _accuracy(combination({name: coefficients[name]})[name], targets[name], name) for name in targets}
    multi = {name: _accuracy(together[name], targets[name], name) for name in targets}
    return Addition(dict(coefficients), single, multi)


def negation(combination: Combination, targets: Targets, task: str, coefficient: float) -> Negation:
    """What taking a task's vector away does to the same task. Cost: three evaluations.

    Source: Sun & Raskutti 2026, with θ_PT − τ where eq. 23 prints θ_FT − τ (which is θ_PT).
    """
    y = targets[task]
    start, added, taken = (combination({task: scale})[task] for scale in (0.0, coefficient, -coefficient))
    error = [float(np.mean(np.sum((y - outputs) ** 2, axis=1))) for outputs in (start, added, taken)]
    return Negation(*error, linear_gap=float(4 * np.mean(np.sum((y - start) * (added - taken) / 2, axis=1))))


def disentanglement_error(combination: Combination, coefficients: Mapping[str, float]) -> float:
    """ξ(c) = Σ_i P_{x ∈ task i}[class of f(x; θ_PT + c_i τ_i) ≠ class of f(x; θ_PT + Σ_j c_j τ_j)].

    0 when no task notices the others. Cost: one evaluation more than there are tasks.
    Source: Ortiz-Jimenez, Favero & Frossard 2023, eq. 5, with disagreement of classes for the distance.
    """
    together = combination(coefficients)
    return sum(
        float(np.mean(decide(combination({name: scale})[name]) != decide(together[name])))
        for name, scale in coefficients.items()
    )


def choose_coefficients(
    combination: Combination, targets: Targets, grid: Sequence[float], *, shared: bool
) -> dict[str, float]:
    """Coefficients on the grid with the highest mean accuracy over tasks; of equals the smallest.

    combination, targets: on validation examples. shared: one coefficient for all tasks, as is usual, instead of every
    combination of the grid's values, which are len(grid)^tasks evaluations.
    """
    names = list(targets)
    tried = ([value] * len(names) for value in grid) if shared else itertools.product(grid, repeat=len(names))

    def score(values: Sequence[float]) -> tuple[float, float]:
        outputs = combination(dict(zip(names, values, strict=True)))
        mean = float(np.mean([_accuracy(outputs[name], targets[name], name) for name in names]))
        return mean, -float(sum(map(abs, values)))

    return dict(zip(names, max(tried, key=score), strict=True))


def _accuracy(outputs: Float[np.ndarray, "m k"], targets: Float[np.ndarray, "m k"], what: str) -> float:
    share = accuracy(outputs, targets)
    if share is None:
        raise InputError(f"accuracy of {what!r}: targets are no classes; wanted ±1 `[m, 1]` or one-hot `[m, k]`")
    return float(share)
