"""Decay, predicted learning curve and alignment of one problem, and rank correlations over many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from jaxtyping import Float, Num

from ntkft.dynamics import predict_risk
from ntkft.kernels import Kernel
from ntkft.spectra import (
    Spectrum,
    decay_over_n,
    fit_decay,
    spectrum,
    spectrum_of_matrix,
    target_alignment,
)

FORMS = {"with_intercept": "with intercept", "through_origin": "through λ̂₁"}
STEP = 0.5
"""Step size in units of 1/λ̂₁."""
EPOCHS = 80
RESAMPLES = 10_000


@dataclass(frozen=True, eq=False)
class Problem:
    """A task and a readout: the kernel of n + m examples in blocks, their targets, and their pretrained outputs."""

    train: Kernel
    cross: Kernel
    test: Kernel
    y: Float[np.ndarray, "i 1"]
    f: Float[np.ndarray, "i 1"]


def measure(
    problem: Problem, *, sizes: Sequence[int], divisors: Sequence[int], draws: int, splits: int, last_epoch: int
) -> dict:
    """All that is said of one problem, ready for JSON; windows are the first n′/divisor eigenvalues at every size n′.

    draws: random subsets, for means and errors of β; splits: into training and test set, for risk.
    """
    whole = spectrum(problem.train).check()
    return {
        "eigenvalues": whole.eigenvalues.tolist(),
        "floor": whole.floor,
        "above_floor": whole.count_above_floor,
        "decay": decay(whole, divisors),
        "errors": standard_errors(problem.train, whole, divisors, draws),
        "by_size": {str(size): subset_decay(problem.train, size, divisors, draws) for size in sizes if size < whole.n},
        "groups": groups(problem.train, whole, divisors),
        "risk": learning_curve(problem, whole, sizes, splits, last_epoch),
        "alignment": alignment(problem, whole),
    }


def window_name(divisor: int) -> str:
    """How the window of the first n/divisor eigenvalues is called."""
    return "n" if divisor == 1 else f"n/{divisor}"


def decay(of: Spectrum, divisors: Sequence[int]) -> dict[str, dict]:
    """By window: β of both power laws, the rate of the exponential, and AIC(exponential) − AIC(power law)."""
    found = {}
    for divisor in divisors:
        fit = fit_decay(of.eigenvalues, window=of.n // divisor, floor=of.floor)
        found[window_name(divisor)] = {
            "with_intercept": fit.with_intercept.rate,
            "through_origin": fit.through_origin.rate,
            "exponential": fit.exponential.rate,
            "aic_difference": fit.aic_difference,
            "lines": {form: getattr(fit, form).at(np.array([1, of.n // divisor])).tolist() for form in FORMS},
        }
    return found


def standard_errors(kernel: Kernel, whole: Spectrum, divisors: Sequence[int], draws: int) -> dict[str, dict]:
    """By window and form, the standard error of β at n, by the delete-d jackknife with d = n/8.

    σ² = (n−d)/d · variance of β over random subsets of n−d examples (Shao & Wu 1989). Smaller subsets would shorten the
    window, and overstate the error.
    """
    kept = whole.n - whole.n // 8
    inflation = np.sqrt(kept / (whole.n - kept))
    found = {}
    for divisor in divisors:
        sample = decay_over_n(
            kernel.total, [kept], window=kept // divisor, precision=kernel.precision, draws=draws, seed=0
        )
        found[window_name(divisor)] = {form: float(inflation * getattr(sample, form).std(ddof=1)) for form in FORMS}
    return found


def subset_decay(kernel: Kernel, size: int, divisors: Sequence[int], draws: int) -> dict[str, dict[str, float]]:
    """By window and form, the mean of β over random subsets of `size` examples."""
    found = {}
    for divisor in divisors:
        sample = decay_over_n(
            kernel.total, [size], window=size // divisor, precision=kernel.precision, draws=draws, seed=0
        )
        found[window_name(divisor)] = {form: float(getattr(sample, form).mean()) for form in FORMS}
    return found


def groups(kernel: Kernel, whole: Spectrum, divisors: Sequence[int]) -> dict[str, dict]:
    """Of each parameter group's own kernel: its share of the trace, and its decay."""
    total = whole.eigenvalues.sum()
    parts = {name: spectrum_of_matrix(part, precision=kernel.precision) for name, part in kernel.groups.items()}
    return {
        name: {"share": float(part.eigenvalues.sum() / total), "decay": decay(part, divisors)}
        for name, part in parts.items()
    }


def learning_curve(problem: Problem, whole: Spectrum, sizes: Sequence[int], splits: int, last_epoch: int) -> dict:
    """Predicted test risk at each size, mean over splits, lowest over epochs; at n also relative to that at epoch 0.

    Each split draws n training examples anew from all n + m: one test set of 96 is too small to rank tasks by.
    """
    cross = np.asarray(problem.cross.total)
    everything = np.block([[np.asarray(problem.train.total), cross.T], [cross, np.asarray(problem.test.total)]])
    epochs = np.unique(np.r_[0, np.round(np.geomspace(1, last_epoch, EPOCHS))]).astype(int)
    curves = []
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(everything))
        train, test = order[: whole.n], order[whole.n :]
        surface = predict_risk(
            everything[np.ix_(train, train)],
            everything[np.ix_(test, train)],
            problem.y[train],
            problem.y[test],
            problem.f[train],
            problem.f[test],
            sizes=sizes,
            epochs=epochs,
            step_size=STEP / whole.eigenvalues[0],
            seeds=[seed],
        )
        curves.append(surface.test_mse[0])
    mean = np.mean(curves, axis=0)
    lowest, initial = mean.min(axis=1), mean[-1, 0]
    return {
        "initial": float(initial),
        "lowest": lowest.tolist(),
        "best_epoch": int(epochs[mean[-1].argmin()]),
        "relative": float(lowest[-1] / initial),
        "fall": float(1 - lowest[-1] / lowest[0]),
    }


def alignment(problem: Problem, whole: Spectrum) -> dict[str, float]:
    """Kernel–target alignment: of the residual with the kernel, and of targets with the kernel, both centred."""
    kernel = np.asarray(problem.train.total, np.float64)
    centred = kernel - kernel.mean(axis=0)[None] - kernel.mean(axis=1)[:, None] + kernel.mean()
    of_centred = spectrum_of_matrix(centred, precision=problem.train.precision)
    y, f = problem.y[: whole.n], problem.f[: whole.n]
    return {
        "plain": target_alignment(whole, y - f).kernel_target,
        "centred": target_alignment(of_centred, y - y.mean()).kernel_target,
    }


def rank_correlation(x: Num[np.ndarray, " n"], y: Num[np.ndarray, " n"], seed: int) -> dict[str, float]:
    """Spearman's ρ, a 95 % percentile interval over resampled pairs, and the exact two-sided permutation p-value."""
    rows = np.random.default_rng(seed).integers(len(x), size=(RESAMPLES, len(x)))
    several = rows[np.ptp(rows, axis=1) > 0]  # one pair drawn n times has no order
    low, high = np.nanquantile(_spearman(x[several], y[several]), [0.025, 0.975])
    return {
        "spearman": float(_spearman(x, y)),
        "low": float(low),
        "high": float(high),
        "p": permutation_p_value(x, y),
    }


def permutation_p_value(x: Num[np.ndarray, " n"], y: Num[np.ndarray, " n"]) -> float:
    """Share of all n! pairings whose |ρ| is at least that of x with y.

    ρ is linear in S = Σ rank(x_i)·rank(y_i). The pairings of the first i items with a set of i ranks are counted by S,
    set by set: n·2ⁿ additions of histograms in place of n! sums. Memory ≈ 2ⁿ·4n³/3 numbers, fine up to n = 14.
    """
    a, b = (np.round(2 * scipy.stats.rankdata(values)).astype(int) for values in (x, y))  # ties make half ranks
    n, width = len(a), int(np.sort(a) @ np.sort(b)) + 1
    counts = np.zeros((2**n, width), np.int64)
    counts[0, 0] = 1
    for used in range(2**n - 1):
        item = used.bit_count()
        for rank in range(n):
            if not used >> rank & 1:
                step = a[item] * b[rank]
                counts[used | 1 << rank, step:] += counts[used, : width - step]
    distance = np.abs(np.arange(width) * n - a.sum() * b.sum())
    return float(counts[-1, distance >= distance[a @ b]].sum() / counts[-1].sum())


def correlations(records: Sequence[Mapping]) -> dict[str, dict[str, float]]:
    """Over tasks: β of each window and form, and alignment, with two measures of the predicted learning curve."""
    measures = {
        f"β {FORMS[form]}, {window}": [record["decay"][window][form] for record in records]
        for window in records[0]["decay"]
        for form in FORMS
    } | {f"alignment, {kind}": [record["alignment"][kind] for record in records] for kind in ("plain", "centred")}
    return {
        f"{outcome} risk against {name}": rank_correlation(
            np.array(values), np.array([record["risk"][key] for record in records]), seed=0
        )
        for outcome, key in (("lowest", "relative"), ("fall of", "fall"))
        for name, values in measures.items()
    }


def _spearman(x: Num[np.ndarray, "... n"], y: Num[np.ndarray, "... n"]) -> Float[np.ndarray, "..."]:
    """Along the last axis; NaN where all values of a row are equal."""
    ranks = [scipy.stats.rankdata(values, axis=-1) for values in (x, y)]
    u, v = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    scale = np.sqrt(np.sum(u**2, axis=-1) * np.sum(v**2, axis=-1))
    return np.sum(u * v, axis=-1) / np.where(scale > 0, scale, np.nan)
