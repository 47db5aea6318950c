"""Everything that kernels say about one fine-tuning run, before it: `predict` composes spectra and dynamics.

One kernel over training, validation and test rows together serves all of it: its training block has the spectrum, its
other rows carry the trained outputs to where they are judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ntkft._errors import refuse
from ntkft._types import Array
from ntkft.dynamics import (
    RiskSurface,
    TargetNorm,
    accuracy,
    dual_coefficients,
    gradient_descent,
    holdout_stopping,
    outputs_at,
    per_output,
    predict_risk,
    rule_intervals,
    spectral_rules,
)
from ntkft.kernels import Kernel
from ntkft.spectra import (
    Alignment,
    DecayFit,
    DecayInterval,
    DecaySample,
    Spectrum,
    decay_interval,
    decay_over_n,
    fit_decay,
    participation_ratio,
    spectrum,
    target_alignment,
)

SETS = ("train", "validation", "test")
_DRAWS = 50
_LEVEL = 0.9


@dataclass(frozen=True, eq=False)
class Problem:
    """A kernel over N = n + v + m rows with the targets and pretrained outputs of every row.

    kernel:     rows in the order training, validation, test; columns alike, or those of training alone
    sizes:      n, v and m by name
    targets:    y, `[N, k]`; pretrained: f_PT, `[N, k]`
    """

    kernel: Kernel
    sizes: Mapping[str, int]
    targets: Float[Array, "N k"]
    pretrained: Float[Array, "N k"]

    def rows(self, name: str) -> slice:
        """Rows of one set."""
        return set_rows(self.sizes, name)

    def block(self, rows: str, columns: str = "train") -> Kernel:
        """The kernel of one set with another."""
        return block(self.kernel, self.rows(rows), self.rows(columns))


@dataclass(frozen=True, eq=False)
class Description:
    """The spectrum of the training kernel and what can be read off it without targets."""

    spectrum: Spectrum
    effective_rank: float
    fit: DecayFit
    interval: DecayInterval
    over_n: DecaySample


@dataclass(frozen=True, eq=False)
class Prediction:
    """What kernels say about full-batch gradient descent on the squared loss.

    epochs:    `[s]`, where curves are evaluated, ascending
    mse:       set → `[s]`, mean over its examples of the squared error summed over outputs
    accuracy:  set → `[s]`, for ±1 or one-hot targets, else empty
    stops:     rule → epoch; infinite if the rule never fires
    intervals: rule → 90 % of its epochs over redrawn noise, of the rules that need no further examples
    sigma, norm: the plug-ins that the rules were given
    surface:   predicted test risk over sample sizes and epochs
    """

    description: Description
    alignment: Alignment
    step_size: float
    epochs: np.ndarray
    mse: Mapping[str, np.ndarray]
    accuracy: Mapping[str, np.ndarray]
    sigma: float
    norm: TargetNorm
    stops: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    surface: RiskSurface


def set_rows(sizes: Mapping[str, int], name: str) -> slice:
    """Rows of one set when the sets of these sizes follow one another in the order of `SETS`."""
    start = sum(sizes[before] for before in SETS[: SETS.index(name)])
    return slice(start, start + sizes[name])


def block(kernel: Kernel, rows: slice, columns: slice) -> Kernel:
    """Rows and columns of a kernel record; positions of examples, whatever the form."""

    def cut(array):
        return array[rows][:, :, columns] if kernel.outputs == "full" else array[rows, columns]

    return Kernel(
        cut(kernel.total),
        {name: cut(group) for name, group in kernel.groups.items()},
        kernel.outputs,
        kernel.precision,
        kernel.symmetric and rows == columns,
        kernel.plan,
    )


def describe(kernel: Kernel, *, window: int | None = None) -> Description:
    """Spectrum, decay fit with its interval over subsamples of half the examples, and its dependence on n.

    window: last eigenvalue of the fit; None takes half the number of those above the floor, at most n/4 and at most
    100, at least 3. The number is part of the result: `fit.window`. Subsamples have n/4 and n/2 examples, or as many
    more as have an eigenvalue for every index in the window.

    Cost: one eigendecomposition, and the eigenvalues of 50 subsamples at each of four sizes up to n. Raises
    `InputError` as `spectrum`, `fit_decay` and `decay_over_n` do.
    """
    spectral = spectrum(kernel).check()
    n, per_example = spectral.n, len(spectral.eigenvalues) // spectral.n
    last = max(min(spectral.count_above_floor // 2, n // 4, 100), 3) if window is None else window
    total, options = kernel.total, {"window": last, "precision": kernel.precision, "draws": _DRAWS, "seed": 0}
    least = -(-last // per_example)
    quarter, half = max(least, n // 4), max(least, n // 2)
    return Description(
        spectral,
        participation_ratio(spectral.eigenvalues),
        fit_decay(spectral.eigenvalues, window=last, floor=spectral.floor),
        decay_interval(total, size=half, level=_LEVEL, **options),
        decay_over_n(total, sorted({quarter, half, n}), **options),
    )


def predict(
    problem: Problem,
    *,
    step_size: float,
    epochs: int,
    record_at: Sequence[int],
    sizes: Sequence[int],
    seeds: Sequence[int],
    patience: int,
    window: int | None = None,
) -> Prediction:
    """Predict the curves, the stopping times under every rule, and the risk over sample sizes.

    The rules are those of `spectral_rules`, hold-out on the validation set with `patience` in epochs, and the oracle.

    Cost: as `describe`, one eigendecomposition for each size and seed, and N·n·k FLOPs for each epoch. Raises
    `InputError` for sets without rows or rows that do not add up, epochs outside 0 … `epochs`, a step size at or above
    2/λ̂₁ (stating it), and as the functions that it composes.
    """
    refuse("predict", _problems(problem, epochs, record_at))
    train = problem.block("train")
    description = describe(train, window=window)
    spectral, k = description.spectrum, problem.targets.shape[1]
    eigenvalues = np.maximum(spectral.eigenvalues, 0) / (k if train.outputs == "trace" else 1)
    if train.outputs == "trace":
        spectral = Spectrum(eigenvalues, spectral.eigenvectors, spectral.floor / k, spectral.n, spectral.groups)

    descent = gradient_descent(step_size)
    every = np.arange(epochs + 1)
    residual = {name: (problem.targets - problem.pretrained)[problem.rows(name)] for name in SETS}
    dual = dual_coefficients(spectral, residual["train"], descent, every)
    errors, decisions = {}, {}
    for name in SETS:
        rows = problem.rows(name)
        outputs = outputs_at(per_output(problem.block(name), k), dual, problem.pretrained[rows])
        errors[name] = np.mean(np.sum((outputs - problem.targets[rows][None]) ** 2, axis=2), axis=1)
        decisions[name] = accuracy(outputs, problem.targets[rows])

    rules = spectral_rules(spectral, residual["train"], step_size=step_size, epochs=epochs)
    options = {"draws": _DRAWS, "level": _LEVEL, "seed": 0}
    intervals = rule_intervals(spectral, residual["train"], step_size=step_size, epochs=epochs, **options)
    stops = dict(rules.epochs) | {
        f"hold-out, patience {patience}": float(holdout_stopping(errors["validation"], patience).best),
        "best on the test set": float(np.argmin(errors["test"])),
    }
    chosen = np.unique(np.asarray(record_at))
    surface = predict_risk(
        train,
        problem.block("test"),
        problem.targets[problem.rows("train")],
        problem.targets[problem.rows("test")],
        problem.pretrained[problem.rows("train")],
        problem.pretrained[problem.rows("test")],
        sizes=sizes,
        epochs=every,
        step_size=step_size,
        seeds=seeds,
    )
    return Prediction(
        description=description,
        alignment=target_alignment(spectral, residual["train"]),
        step_size=float(step_size),
        epochs=chosen,
        mse={name: values[chosen] for name, values in errors.items()},
        accuracy={name: values[chosen] for name, values in decisions.items() if values is not None},
        sigma=rules.sigma,
        norm=rules.norm,
        stops=stops,
        intervals=intervals,
        surface=surface,
    )


def _problems(problem: Problem, epochs: int, record_at: Sequence[int]) -> list[str]:
    """Everything that keeps a prediction from being made."""
    rows = {
        "kernel": problem.kernel.total.shape[0],
        "targets": len(problem.targets),
        "pretrained outputs": len(problem.pretrained),
    }
    total = sum(problem.sizes[name] for name in SETS)
    found = [f"the {name} set has no rows; wanted at least one" for name in SETS if problem.sizes[name] < 1]
    found += [
        f"{what}: {count} rows; wanted {total}, those of all sets" for what, count in rows.items() if count != total
    ]
    found += [f"epochs is {epochs}; wanted at least 1"] if epochs < 1 else []
    found += [f"recorded epoch {epoch} is outside 0 … {epochs}" for epoch in record_at if not 0 <= epoch <= epochs]
    return found + ([] if len(record_at) else ["got no epochs to record; wanted at least one"])
