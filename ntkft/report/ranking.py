"""Which checkpoint to fine-tune: each one's risk as its own kernel predicts it, before any fine-tuning."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from ntkft._errors import refuse
from ntkft.dynamics import accuracy, dual_coefficients, gcv, gradient_descent, outputs_at, per_output
from ntkft.dynamics.filters import remaining
from ntkft.report.prediction import Problem
from ntkft.spectra import spectrum_of_matrix

Judge = Literal["validation", "gcv"]
"""What says how good a checkpoint is: validation rows, or generalised cross-validation on the training rows."""


@dataclass(frozen=True, eq=False)
class KernelRisk:
    """What the kernel of a checkpoint predicts of fine-tuning it, in the words of its judge.

    step_size: ε; epoch: with the lowest predicted risk, of `epochs` (those of `epoch_grid`)
    errors:    `[r]`, what each row of the judge adds there, summed over outputs; `risk` is their mean. Of validation:
               the squared error. Of gcv: that of the training row over the squared share of degrees of freedom left
    curve:     `[s]`, risk at `epochs`
    accuracy:  share of validation rows classified right there; None for gcv and unless targets are ±1 or one-hot
    test_risk, test_accuracy: squared error and accuracy of the test rows, at the same epoch; None without test rows
    """

    name: str
    judge: Judge
    step_size: float
    epoch: int
    errors: Float[np.ndarray, " r"]
    epochs: Int[np.ndarray, " s"]
    curve: Float[np.ndarray, " s"]
    accuracy: float | None
    test_risk: float | None
    test_accuracy: float | None

    @property
    def risk(self) -> float:
        """Predicted risk at `epoch`, the mean of `errors`."""
        return float(self.errors.mean())


@dataclass(frozen=True)
class Ranking:
    """Checkpoints by predicted risk, the best first.

    behind: predicted risk minus that of the best, with its standard error over the judge's rows; errors of the same row
    are subtracted first, so that what makes a row hard for every checkpoint does not count
    """

    names: tuple[str, ...]
    risks: tuple[float, ...]
    behind: tuple[tuple[float, float], ...]


def epoch_grid(last: int) -> Int[np.ndarray, " s"]:
    """Every epoch to 64, then in steps of 2 % to the last: some 200 for 1,000 epochs, 550 for a million.

    Where one direction of a kernel is thousands of times as fast as the others, the best epoch is that far off.
    """
    spaced = np.geomspace(64, max(last, 64), 1 + int(np.ceil(np.log(max(last, 64) / 64) / np.log(1.02))))
    grid = np.unique(np.concatenate([np.arange(65), np.round(spaced).astype(int), [last]]))
    return grid[grid <= last]


def kernel_risk(name: str, problem: Problem, *, judge: Judge, step: float, epochs: int) -> KernelRisk:
    """Predict full-batch gradient descent on the squared loss at ε = step/λ̂₁, stopped at its lowest predicted risk.

    judge: "validation": the mean squared error of the validation rows. "gcv": (1/n) Σ ‖y − f_t‖² over the training rows
           / (mean_j (1 − ελ̂_j)^t)², an estimate of risk plus noise that is the less to be trusted the fewer degrees
           of freedom are left. It takes no example away from training, and the kernel of the n training rows alone.
    step:  below 2, in units of 1/λ̂₁ of this checkpoint's training kernel, for eigenvalues of checkpoints of different
           sizes differ by orders of magnitude.

    The lowest of a curve is a little too low as an estimate of risk, for every checkpoint alike. Cost: one
    eigendecomposition, ≈ 9 (nk)³ FLOPs, and 2·(v + m)·n·k for each epoch of `epoch_grid`. Raises `InputError` for no
    training rows, a judge without rows or with validation rows that it does not read, rows that do not add up,
    epochs < 1, a step outside (0, 2), and as the functions that it composes.
    Source: Sun & Raskutti 2026, kernel gradient descent around the pretrained outputs; Craven & Wahba 1979 (gcv).
    """
    refuse("kernel_risk", _problems(problem, judge, step, epochs))
    k = problem.targets.shape[1]
    train = problem.rows("train")
    spectrum = spectrum_of_matrix(
        np.asarray(per_output(problem.block("train"), k)), precision=problem.kernel.precision
    ).check()
    step_size = step / float(spectrum.eigenvalues[0])
    residual = (problem.targets - problem.pretrained)[train]
    every = epoch_grid(epochs)
    descent = gradient_descent(step_size)
    dual = dual_coefficients(spectrum, residual, descent, every)

    def outputs(rows: str, at: slice) -> np.ndarray:
        part = problem.rows(rows)
        return outputs_at(per_output(problem.block(rows), k), dual[at], problem.pretrained[part])

    def errors(found: np.ndarray, rows: str) -> np.ndarray:
        return np.sum((found - problem.targets[problem.rows(rows)][None]) ** 2, axis=2)

    share = None
    if judge == "validation":
        validation = outputs("validation", slice(None))
        squared = errors(validation, "validation")
        curve = squared.mean(axis=1)
        best = int(np.argmin(curve))
        share = _share(validation[best : best + 1], problem, "validation")
        judged = squared[best]
    else:
        curve = gcv(spectrum, residual, descent, every).values
        best = int(np.argmin(curve))
        left = remaining(descent, spectrum.eigenvalues, every[best : best + 1])
        judged = errors(outputs("train", slice(best, best + 1)), "train")[0] / left.mean() ** 2
    test = outputs("test", slice(best, best + 1)) if problem.sizes["test"] else None
    return KernelRisk(
        name=name,
        judge=judge,
        step_size=step_size,
        epoch=int(every[best]),
        errors=judged,
        epochs=every,
        curve=curve,
        accuracy=share,
        test_risk=None if test is None else float(errors(test, "test").mean()),
        test_accuracy=None if test is None else _share(test, problem, "test"),
    )


def rank(found: Sequence[KernelRisk]) -> Ranking:
    """Checkpoints by their predicted risk, of the same rows and by the same judge.

    Raises `InputError` for fewer than two, a name given twice, and different judges or numbers of rows.
    """
    names = [each.name for each in found]
    judges = sorted({f"{each.judge} of {len(each.errors)} rows" for each in found})
    refuse(
        "rank",
        ([f"got {len(names)} checkpoints; wanted at least two"] if len(names) < 2 else [])
        + [f"{name} is there {names.count(name)} times" for name in dict.fromkeys(names) if names.count(name) > 1]
        + ([f"got {' and '.join(judges)}; wanted the same for every checkpoint"] if len(judges) > 1 else []),
    )
    ordered = sorted(found, key=lambda each: each.risk)
    differences = [each.errors - ordered[0].errors for each in ordered]
    rows = len(ordered[0].errors)
    spread = [float(each.std(ddof=1) / np.sqrt(rows)) if rows > 1 else float("nan") for each in differences]
    return Ranking(
        tuple(each.name for each in ordered),
        tuple(each.risk for each in ordered),
        tuple((float(each.mean()), error) for each, error in zip(differences, spread, strict=True)),
    )


def _share(outputs: np.ndarray, problem: Problem, rows: str) -> float | None:
    right = accuracy(outputs, problem.targets[problem.rows(rows)])
    return None if right is None else float(right[0])


def _problems(problem: Problem, judge: Judge, step: float, epochs: int) -> list[str]:
    total, validation = sum(problem.sizes.values()), problem.sizes["validation"]
    counted = {"kernel": problem.kernel.total.shape[0], "targets": len(problem.targets)}
    counted["pretrained outputs"] = len(problem.pretrained)
    found = [] if problem.sizes["train"] else ["the train set has no rows; wanted at least one"]
    if judge == "validation" and not validation:
        found.append("the validation set has no rows; wanted at least one, or the judge 'gcv', which needs none")
    if judge == "gcv" and validation:
        found.append(f"the judge 'gcv' does not read the {validation} validation rows; give them to training")
    found += [
        f"{what}: {count} rows; wanted {total}, those of all sets" for what, count in counted.items() if count != total
    ]
    found += [f"epochs is {epochs}; wanted at least 1"] if epochs < 1 else []
    return found + ([] if 0 < step < 2 else [f"step is {step:g}; wanted 0 < step < 2, in units of 1/λ̂₁"])
