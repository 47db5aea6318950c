"""Everything that kernels say about one fine-tuning run, before it: `predict` composes spectra and dynamics.

One kernel over training, validation and test rows together serves all of it: its training block has the spectrum, its
other rows carry the trained outputs to where they are judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ntkft._errors import InputError, refuse
from ntkft._types import Array
from ntkft.dynamics import (
    RiskSurface,
    TargetNorm,
    dual_coefficients,
    estimate_noise,
    estimate_target_norm,
    gcv,
    gradient_descent,
    holdout_stopping,
    krr_stopping,
    outputs_at,
    per_output,
    predict_risk,
    stopping_time,
    sure,
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

    kernel:     square, rows in the order training, validation, test
    sizes:      n, v and m by name
    targets:    y, `[N, k]`; pretrained: f_PT, `[N, k]`
    """

    kernel: Kernel
    sizes: Mapping[str, int]
    targets: Float[Array, "N k"]
    pretrained: Float[Array, "N k"]

    def rows(self, name: str) -> slice:
        """Rows of one set."""
        start = sum(self.sizes[before] for before in SETS[: SETS.index(name)])
        return slice(start, start + self.sizes[name])

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

    epochs:    `[s]`, where curves are evaluated
    mse:       set → `[s]`, mean over its examples of the squared error summed over outputs
    accuracy:  set → `[s]`, for ±1 or one-hot targets, else empty
    stops:     rule → epoch; infinite if the rule never fires
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
    surface: RiskSurface


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

    window: last eigenvalue of the fit; None takes the first half of those above the floor, at most 100 (the number
    is part of the result: `fit.window`).
    """
    spectral = spectrum(kernel).check()
    n = spectral.n
    last = window or max(min(spectral.count_above_floor // 2, n // 4, 100), 3)
    total, options = kernel.total, {"window": last, "precision": kernel.precision, "draws": _DRAWS, "seed": 0}
    sizes = sorted({max(last, n // 4), max(last, n // 2), n})
    return Description(
        spectral,
        participation_ratio(spectral.eigenvalues),
        fit_decay(spectral.eigenvalues, window=last, floor=spectral.floor),
        decay_interval(total, size=sizes[len(sizes) // 2], level=_LEVEL, **options),
        decay_over_n(total, sizes, **options),
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

    Rules get plug-ins: σ from the residual at the epoch that generalised cross-validation picks, C_H from
    rᵀ(𝕂 + nν⁻¹)⁻¹r with ν = ε·epochs. `patience` counts epochs of the validation curve, evaluated at every epoch.

    Cost: one eigendecomposition of the training kernel, and one for each size and seed. Raises `InputError` for a
    step size at or above 2/λ̂₁ (stating it), and as the functions that it composes.
    """
    train = problem.block("train")
    description = describe(train, window=window)
    spectral, k = description.spectrum, problem.targets.shape[1]
    eigenvalues = np.maximum(spectral.eigenvalues, 0) / (k if train.outputs == "trace" else 1)
    if train.outputs == "trace":
        spectral = Spectrum(eigenvalues, spectral.eigenvectors, spectral.floor / k, spectral.n, spectral.groups)
    _refuse_bad_epochs(epochs, record_at)

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

    cross_validated = gcv(spectral, residual["train"], descent, every)
    sigma = estimate_noise(spectral, residual["train"], descent, cross_validated.best)
    penalty = max(spectral.n / (step_size * max(epochs, 1)), spectral.n * spectral.floor)
    norm = estimate_target_norm(spectral, residual["train"], ridge=penalty, sigma=sigma)
    stops = {
        "rule, unit norm": stopping_time(eigenvalues, sigma, step_size),
        "rule, C_H plug-in": stopping_time(eigenvalues, sigma, step_size, norm.plug_in),
        "kernel ridge rule": krr_stopping(eigenvalues, sigma, norm.plug_in) / step_size,
        "SURE": sure(spectral, residual["train"], sigma, descent, every).best,
        "GCV": cross_validated.best,
        f"hold-out, patience {patience}": holdout_stopping(errors["validation"], patience).best,
        "best on the test set": int(np.argmin(errors["test"])),
    }
    chosen = np.asarray(record_at)
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
        sigma=sigma,
        norm=norm,
        stops={name: float(stop) for name, stop in stops.items()},
        surface=surface,
    )


def accuracy(outputs: Float[np.ndarray, "s m k"], targets: Float[Array, "m k"]) -> np.ndarray | None:
    """Share of right classes at each step: sign for ±1 targets of one output, largest output for one-hot ones."""
    targets = np.asarray(targets)
    if targets.shape[1] == 1:
        if not np.isin(targets, (-1.0, 1.0)).all():
            return None
        return np.mean((outputs >= 0) == (targets >= 0)[None], axis=(1, 2))
    if not (np.isin(targets, (0.0, 1.0)).all() and (targets.sum(axis=1) == 1).all()):
        return None
    return np.mean(outputs.argmax(axis=2) == targets.argmax(axis=1)[None], axis=1)


def _refuse_bad_epochs(epochs: int, record_at: Sequence[int]) -> None:
    problems = [f"epochs is {epochs}; wanted at least 1"] if epochs < 1 else []
    problems += [f"recorded epoch {epoch} is outside 0 … {epochs}" for epoch in record_at if not 0 <= epoch <= epochs]
    if not len(record_at):
        raise InputError("predict: got no epochs to record; wanted at least one")
    refuse("predict", problems)
