"""Predicted learning curves: test and training risk over sample size and epochs, from one kernel and no training.

One kernel of n training examples holds the kernels of all its subsets. For every seed the examples are put in a random
order; size n′ takes the first n′ of them, so sizes are nested within a seed, and n′ = n is the same for all seeds. Each
subset costs one eigendecomposition; epochs cost next to nothing.

Mean squared errors are means over examples of the *sum* over outputs, 2 × the loss whose descent is predicted.
"""

from dataclasses import dataclass
from operator import index
from typing import SupportsFloat

import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Num

from ntkft._errors import refuse
from ntkft._types import Array
from ntkft.dynamics.classification import accuracy, class_of
from ntkft.dynamics.filters import SpectralFilter, gradient_descent, whole_steps
from ntkft.dynamics.prediction import dual_coefficients, outputs_at, per_output, precision_of, restrict
from ntkft.spectra.decay import Counts
from ntkft.spectra.eigen import EmpiricalKernel, as_columns, spectrum_of_matrix


@dataclass(frozen=True, eq=False)
class RiskSurface:
    """Predicted risk, each array `[seeds, sizes, epochs]`.

    test_mse, train_mse: mean over test examples, or over the subset trained on, of squared error summed over outputs
    test_accuracy:       share of test examples whose class is predicted; None unless targets are ±1 or one-hot
    """

    seeds: tuple[int, ...]
    sizes: tuple[int, ...]
    epochs: tuple[int, ...]
    step_size: float
    test_mse: Float[np.ndarray, "seeds sizes epochs"]
    train_mse: Float[np.ndarray, "seeds sizes epochs"]
    test_accuracy: Float[np.ndarray, "seeds sizes epochs"] | None


@dataclass(frozen=True, eq=False)
class Interval:
    """Mean over seeds and the Student interval of that mean, each of the shape of one seed's values."""

    level: float
    mean: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]


def predict_risk(
    train_kernel: EmpiricalKernel | Num[Array, "..."],
    cross_kernel: EmpiricalKernel | Num[Array, "..."],
    y_train: Num[Array, "..."],
    y_test: Num[Array, "..."],
    f_train: Num[Array, "..."],
    f_test: Num[Array, "..."],
    *,
    sizes: Counts,
    epochs: Counts,
    step_size: SupportsFloat,
    seeds: Counts,
) -> RiskSurface:
    """Predicted risk of full-batch gradient descent on the squared loss (1/2n′) Σ ‖y − f‖², over n′ and epochs.

    train_kernel: kernel of the n training examples with themselves; cross_kernel: of m *test* examples (rows) with the
    training examples (columns); unnormalised, records or arrays `[n, n]`, `[m, n]`, or for k outputs with all their
    pairs `[n, k, n, k]`, `[m, k, n, k]`. Arrays `[n, n]` act on every output alike; trace records are divided by k
    first (see `ntkft.dynamics.prediction`). y, f: targets and pretrained outputs, `[n]` or `[n, k]`, `[m]` or `[m, k]`.
    sizes: n′ ≤ n; epochs: steps of gradient descent, 0 for the pretrained model; seeds: one random order each.

    Accuracy: sign for one output with targets ±1 (an output of zero counts as +1), largest output for one-hot targets.
    A subset of n′ examples is a plain random subset, not stratified.

    Cost: seeds·sizes eigendecompositions (≈ 9 (n′k)³ FLOPs) and 2·(n′ + m)·n′·epochs·k FLOPs (k² for full kernels).
    Raises `InputError` for shapes that do not fit and values that are not finite, for sizes outside 1 … n and empty
    lists, for a step size at or above 2/λ̂₁ of any subset's kernel, and as `spectrum_of_matrix` does.
    Source: Sun & Raskutti 2026, the closed form of kernel gradient descent.
    """
    data = _checked_data(train_kernel, cross_kernel, y_train, y_test, f_train, f_test)
    n = len(data.y)
    counts, orders = tuple(index(size) for size in sizes), tuple(index(seed) for seed in seeds)
    refuse(
        "predict_risk",
        [f"size {size} is outside 1 … n = {n}" for size in counts if not 1 <= size <= n]
        + [
            f"got no {name}; wanted at least one"
            for name, given in (("sizes", counts), ("epochs", epochs), ("seeds", orders))
            if len(given) == 0
        ],
    )
    descent, steps = gradient_descent(step_size), whole_steps("predict_risk", np.asarray(epochs))
    everything = _learning_curve(data, np.arange(n), descent, steps) if n in counts else None
    surface = np.empty((3, len(orders), len(counts), len(steps)))
    for i, seed in enumerate(orders):
        for j, (size, rows) in enumerate(zip(counts, nested_rows(n, counts, seed), strict=True)):
            surface[:, i, j] = everything if size == n else _learning_curve(data, rows, descent, steps)
    return RiskSurface(
        seeds=orders,
        sizes=counts,
        epochs=tuple(int(t) for t in steps),
        step_size=float(step_size),
        test_mse=surface[0],
        train_mse=surface[1],
        test_accuracy=None if class_of(data.y) is None or class_of(data.y_test) is None else surface[2],
    )


def nested_rows(n: int, sizes: Counts, seed: int) -> list[Int[np.ndarray, " size"]]:
    """The random subsets of n examples that `predict_risk` trains on: ascending rows, smaller sets inside larger ones.

    Raises `InputError` for a size outside 0 … n.
    """
    counts = [index(size) for size in sizes]
    refuse("nested_rows", [f"size {size} is outside 0 … n = {n}" for size in counts if not 0 <= size <= n])
    order = np.random.default_rng(seed).permutation(n)
    return [np.sort(order[:size]) for size in counts]


def over_seeds(values: Float[np.ndarray, "seeds *rest"], level: SupportsFloat) -> Interval:
    """Mean over the leading axis and its Student interval at `level` in (0, 1).

    The seeds' subsets come from one pool of examples, so the interval speaks of the choice of subset, not of a new
    pool; at n′ = n it has no width. Raises `InputError` for fewer than two seeds or a level outside (0, 1).
    """
    count, share = len(values), float(level)
    refuse(
        "over_seeds",
        ([f"got {count} seed; an interval needs at least two"] if count < 2 else [])
        + ([f"level is {share:g}; wanted a share between 0 and 1, such as 0.95"] if not 0 < share < 1 else []),
    )
    mean = values.mean(axis=0)
    half = scipy.stats.t.ppf((1 + share) / 2, count - 1) * values.std(axis=0, ddof=1) / np.sqrt(count)
    return Interval(share, mean, mean - half, mean + half)


@dataclass(frozen=True, eq=False)
class _Data:
    """What training is predicted from: kernels that drive each output, targets and pretrained outputs, `[·, k]`."""

    train: Num[np.ndarray, "..."]
    cross: Num[np.ndarray, "..."]
    precision: str
    y: Float[np.ndarray, "n k"]
    y_test: Float[np.ndarray, "m k"]
    f: Float[np.ndarray, "n k"]
    f_test: Float[np.ndarray, "m k"]


def _checked_data(train_kernel, cross_kernel, y_train, y_test, f_train, f_test) -> _Data:
    n, m = len(y_train), len(y_test)
    y, y_new = as_columns("y_train", y_train, n), as_columns("y_test", y_test, m)
    f, f_new = as_columns("f_train", f_train, n), as_columns("f_test", f_test, m)
    k = y.shape[1]
    train, cross = np.asarray(per_output(train_kernel, k)), np.asarray(per_output(cross_kernel, k))
    problems = [
        f"{name} has {len(array[0])} outputs per example, y_train {k}; wanted the same"
        for name, array in (("y_test", y_new), ("f_train", f), ("f_test", f_new))
        if array.shape[1] != k
    ]
    problems += [
        f"{name} kernel has shape {list(kernel.shape)}; wanted [{rows}, {n}] or [{rows}, {k}, {n}, {k}] for {rows} and "
        f"{n} examples with {k} outputs"
        for name, kernel, rows in (("train", train, n), ("cross", cross, m))
        if tuple(kernel.shape) not in ((rows, n), (rows, k, n, k))
    ]
    if train.ndim != cross.ndim:
        problems.append("one kernel has all pairs of outputs and the other has not; compute both with the same outputs")
    if bad := np.flatnonzero(~np.isfinite(cross.reshape(len(cross), -1)).all(axis=1)).tolist():
        problems.append(f"cross kernel holds NaN or infinity for test examples {bad[:8]}; leave them out")
    refuse("predict_risk", problems)
    return _Data(train, cross, precision_of(train_kernel), y, y_new, f, f_new)


def _learning_curve(
    data: _Data, rows: Int[np.ndarray, " i"], descent: SpectralFilter, steps: Float[np.ndarray, " s"]
) -> Float[np.ndarray, "3 s"]:
    """Test error, training error and test accuracy at every step, trained on `rows`."""
    subset = restrict(data.train, rows, rows)
    spectrum = spectrum_of_matrix(subset, precision=data.precision)
    dual = dual_coefficients(spectrum, data.y[rows] - data.f[rows], descent, steps)
    fitted = outputs_at(subset, dual, data.f[rows])
    predicted = outputs_at(restrict(data.cross, slice(None), rows), dual, data.f_test)
    right = accuracy(predicted, data.y_test)
    return np.stack(
        [
            _mean_square(predicted, data.y_test),
            _mean_square(fitted, data.y[rows]),
            np.full(len(steps), np.nan) if right is None else right,
        ]
    )


def _mean_square(outputs: Float[np.ndarray, "s m k"], targets: Float[np.ndarray, "m k"]) -> Float[np.ndarray, " s"]:
    return np.mean(np.sum((outputs - targets[None]) ** 2, axis=2), axis=1)
