"""How fast the eigenvalues fall: polynomial λ̂_k ≍ k^{−2β} against exponential λ̂_k ≍ e^{−ck}, and how much to trust it.

The decay decides the rate of the risk, (σ²/n)^{2β/(2β+1)} for a polynomial and σ² log n / n for an exponential, but
estimates of it are fragile: on the kernel min(x, x′), whose β is 1, the usual fit gives 1.26 on the first 20
eigenvalues of 100 and 1.13 on all of them. So the window is never chosen silently, two forms of the power law stand
beside each other and beside the exponential, eigenvalues that are rounding noise are left out and counted, and the
spread over subsamples and sizes is one call away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal, SupportsFloat, SupportsIndex, TypeAlias

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int, Num

from ntkft._errors import InputError, refuse
from ntkft._types import Array
from ntkft.spectra.eigen import machine_epsilon, normalised

Window: TypeAlias = SupportsIndex | tuple[SupportsIndex, SupportsIndex]
"""First and last index of the eigenvalues to fit, counted from one, both included; one number L means (1, L)."""

Counts: TypeAlias = Sequence[SupportsIndex] | Int[Array, " _"]
"""A list of whole numbers."""


@dataclass(frozen=True)
class Line:
    """One least-squares line through log eigenvalues: log λ̂_k = log_scale − slope·x, x = log k or k.

    rate:      β = slope/2 for a polynomial, c = slope for an exponential
    r_squared: 1 − RSS/TSS with TSS about the mean, so a line through a fixed point may fall below zero
    aic:       m log(RSS/m) + 2·(fitted coefficients + 1), for Gaussian errors of the m log eigenvalues; compare it
               only within one window
    """

    form: Literal["polynomial", "exponential"]
    rate: float
    log_scale: float
    r_squared: float
    aic: float

    def at(self, k: Num[Array, "..."] | SupportsIndex) -> Float[np.ndarray, "..."]:
        """Eigenvalues that the line predicts for indices k = 1, 2, …"""
        position = np.asarray(k, np.float64)
        decay = 2 * self.rate * np.log(position) if self.form == "polynomial" else self.rate * position
        return np.asarray(np.exp(self.log_scale - decay))


@dataclass(frozen=True)
class DecayFit:
    """Fits of the eigenvalue decay over one window.

    window:         first and last index k, counted from one, both included
    used:           eigenvalues fitted
    below_floor:    eigenvalues in the window left out as rounding noise
    through_origin: power law through λ̂₁ (log(λ̂_k/λ̂₁) on log k through (1, 0)), the form of Sun & Raskutti
    with_intercept: power law with its own scale
    exponential:    exponential with its own scale
    """

    window: tuple[int, int]
    used: int
    below_floor: int
    through_origin: Line
    with_intercept: Line
    exponential: Line

    @property
    def preferred(self) -> Literal["polynomial", "exponential"]:
        """The form with the lower AIC, both with their own scale."""
        return "polynomial" if self.aic_difference >= 0 else "exponential"

    @property
    def aic_difference(self) -> float:
        """AIC(exponential) − AIC(power law with intercept): above zero speaks for the power law, above 10 strongly."""
        return self.exponential.aic - self.with_intercept.aic


@dataclass(frozen=True, eq=False)
class DecaySample:
    """β fitted on random subsets of the examples, drawn without replacement.

    sizes: `[sizes]` examples in a subset; through_origin, with_intercept: β, `[sizes, draws]`
    """

    window: tuple[int, int]
    seed: int
    sizes: tuple[int, ...]
    through_origin: Float[np.ndarray, "sizes draws"]
    with_intercept: Float[np.ndarray, "sizes draws"]


@dataclass(frozen=True)
class DecayInterval:
    """Central intervals of β over subsamples of one size; each is (low, high)."""

    level: float
    size: int
    draws: int
    through_origin: tuple[float, float]
    with_intercept: tuple[float, float]


def fit_decay(
    eigenvalues: Num[Array, " r"],
    *,
    window: Window,
    floor: SupportsFloat = 0.0,
) -> DecayFit:
    """Least-squares decay of the log eigenvalues over a window.

    eigenvalues: descending, from λ̂₁ on; window: (first, last), or the last alone;
    floor: rounding noise level (`Spectrum.floor`), at or below which eigenvalues are left out and counted. The default
    leaves out only what has no logarithm.

    Cost: negligible. Raises `InputError` for a window outside the eigenvalues, eigenvalues that are not descending or
    not finite, λ̂₁ below the floor, or fewer than three usable eigenvalues.
    Source: Sun & Raskutti 2026, their fit of β (through the origin, n = 100).
    """
    values, level = np.asarray(eigenvalues, np.float64), float(floor)
    first, last = _checked_window(window, len(values))
    usable = _usable(values, level)
    inside = np.arange(first, last + 1)
    kept = inside[usable[first - 1 : last]]
    if kept.size < 3:
        raise InputError(
            f"fit_decay: window ({first}, {last}) holds {kept.size} eigenvalues above the floor {level:.3g}; "
            "wanted at least 3: widen the window, take more examples, or compute the kernel in higher precision"
        )
    log_values, log_index = np.log(values[kept - 1]), np.log(kept)
    return DecayFit(
        window=(first, last),
        used=int(kept.size),
        below_floor=int(inside.size - kept.size),
        through_origin=_line("polynomial", log_index, log_values, through=float(np.log(values[0]))),
        with_intercept=_line("polynomial", log_index, log_values, through=None),
        exponential=_line("exponential", kept.astype(np.float64), log_values, through=None),
    )


def decay_over_n(
    kernel: Num[Array, "..."],
    sizes: Counts,
    *,
    window: Window,
    precision: str,
    draws: SupportsIndex,
    seed: SupportsIndex,
) -> DecaySample:
    """β on random subsets of every size, from one unnormalised kernel `[n, n]` or `[n, k, n, k]`.

    Within a draw the subsets are nested. Subsets are drawn without replacement: repeated examples would make the matrix
    singular and bend the tail. The window is the same at every size.

    Cost: eigenvalues of len(sizes)·draws matrices (≈ 4/3 (n′k)³ FLOPs each). Raises `InputError` for sizes outside
    (window's end) … n, and as `fit_decay` and `spectrum_of_matrix` do.
    """
    matrix = normalised(kernel, precision=precision, what="decay_over_n")
    n = kernel.shape[0]
    block, counts, repeats = len(matrix) // n, tuple(index(size) for size in sizes), index(draws)
    first, last = _checked_window(window, len(matrix))
    refuse(
        "decay_over_n",
        [f"size {size} is outside 1 … n = {n}" for size in counts if not 1 <= size <= n]
        + [
            f"size {size} has {size * block} eigenvalues, fewer than the window ({first}, {last}) asks for; "
            "shorten the window or leave the size out"
            for size in counts
            if 1 <= size <= n and size * block < last
        ]
        + ([f"draws is {repeats}; wanted at least 1"] if repeats < 1 else []),
    )
    generator = np.random.default_rng(index(seed))
    fits = np.empty((2, len(counts), repeats))
    for draw in range(repeats):
        order = generator.permutation(n)
        for position, size in enumerate(counts):
            if size == n and draw:  # every draw of all examples is the same set
                fits[:, position, draw] = fits[:, position, 0]
                continue
            fits[:, position, draw] = _subset_rates(matrix, np.sort(order[:size]), n, (first, last), precision)
    return DecaySample((first, last), index(seed), counts, fits[0], fits[1])


def decay_interval(
    kernel: Num[Array, "..."],
    *,
    window: Window,
    size: SupportsIndex,
    precision: str,
    draws: SupportsIndex,
    level: SupportsFloat,
    seed: SupportsIndex,
) -> DecayInterval:
    """Central interval of β over random subsets of `size` examples, `level` in (0, 1).

    It is the spread between data sets of that size, not rescaled to n, and subsets of one pool overlap: with `size`
    near n it is too narrow. It says nothing of the estimator's bias, which `decay_over_n` shows. Cost and errors: as
    there.
    """
    share = float(level)
    if not 0 < share < 1:
        raise InputError(f"decay_interval: level is {share:g}; wanted a share between 0 and 1, such as 0.9")
    sample = decay_over_n(kernel, [size], window=window, precision=precision, draws=draws, seed=seed)
    tails = [(1 - share) / 2, (1 + share) / 2]
    ends = [np.quantile(betas, tails) for betas in (sample.through_origin, sample.with_intercept)]
    through_origin, with_intercept = ((float(low), float(high)) for low, high in ends)
    return DecayInterval(share, sample.sizes[0], index(draws), through_origin, with_intercept)


def _line(form: Literal["polynomial", "exponential"], x: np.ndarray, y: np.ndarray, *, through: float | None) -> Line:
    """Least squares of y on x; `through` fixes the value at x = 0 (that is k = 1 when x = log k)."""
    if through is None:
        centred = x - x.mean()
        slope = centred @ y / (centred @ centred)
        origin, coefficients = y.mean() - slope * x.mean(), 2
    else:
        slope, origin, coefficients = x @ (y - through) / (x @ x), through, 1
    rss = float(np.sum((y - origin - slope * x) ** 2))
    tss = float(np.sum((y - y.mean()) ** 2))
    # A perfect fit has no AIC; the smallest normal number keeps it finite and far below any other.
    aic = len(y) * float(np.log(max(rss, np.finfo(np.float64).tiny) / len(y))) + 2 * (coefficients + 1)
    rate = -slope / 2 if form == "polynomial" else -slope
    return Line(form, float(rate), float(origin), 1 - rss / tss if tss > 0 else 1.0, aic)


def _subset_rates(
    matrix: np.ndarray, rows: np.ndarray, n: int, window: tuple[int, int], precision: str
) -> tuple[float, float]:
    """β through the origin and with intercept on the examples `rows` of n; no fit sees the matrix's scale."""
    block = len(matrix) // n
    entries = (rows[:, None] * block + np.arange(block)[None]).ravel()
    values = scipy.linalg.eigvalsh(matrix[np.ix_(entries, entries)], overwrite_a=True)[::-1]
    floor = machine_epsilon(precision) * values[0] * np.sqrt(len(values))
    fit = fit_decay(values, window=window, floor=floor)
    return fit.through_origin.rate, fit.with_intercept.rate


def _checked_window(window: Window, count: int) -> tuple[int, int]:
    ends = window if isinstance(window, tuple) else (1, window)
    first, last = (index(end) for end in ends)
    if not 1 <= first < last <= count:
        raise InputError(
            f"fit_decay: window ({first}, {last}) does not fit {count} eigenvalues; wanted 1 ≤ first < last ≤ {count}"
        )
    return first, last


def _usable(values: np.ndarray, floor: float) -> np.ndarray:
    """Which eigenvalues are above the floor; raises `InputError` when the list itself cannot be fitted."""
    problems = []
    if not np.all(np.isfinite(values)):
        problems.append(f"{int(np.sum(~np.isfinite(values)))} eigenvalues are NaN or infinite; mend the kernel first")
    elif np.any(np.diff(values) > 0):
        problems.append("eigenvalues are not descending; sort them, largest first")
    elif values[0] <= max(floor, 0.0):
        problems.append(
            f"the largest eigenvalue {values[0]:.3g} is not above the floor {floor:.3g}; nothing can be fitted"
        )
    if not 0 <= floor < np.inf:
        problems.append(f"floor is {floor:g}; wanted a finite number, zero or above")
    refuse("fit_decay", problems)
    return values > floor
