"""What a ridge penalty really costs a regression on n examples: κ, degrees of freedom, bias and variance.

Fit n examples whose features have population covariance Σ with eigenvalues s_i, by least squares with penalty λ ≥ 0 on
the normalised problem (λ = 0: the interpolator of least norm). In the limit of many examples and features the fit is
that of the whole population with a larger penalty κ ≥ λ, the effective ridge:

    Σ_i s_i/(s_i + κ) = n − nλ/κ,        df1 = Σ_i s_i/(s_i + κ),        df2 = Σ_i (s_i/(s_i + κ))².

Any spectrum will do. For a kernel the s_i are the eigenvalues of its integral operator: those of the *normalised*
matrix K = 𝕂/N of a pool of N ≫ n examples are exactly the operator's when the population is the pool, so an empirical
NTK predicts what regression on n examples drawn from its pool risks.
"""

from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from jaxtyping import Float, Num
from scipy.optimize import brentq

from ntkft._errors import InputError, refuse
from ntkft._types import Array
from ntkft.spectra.complexity import checked_scale, effective_dimension, nonnegative


@dataclass(frozen=True)
class RidgeRisk:
    """Expected excess risk of ridge regression and what it was computed from.

    kappa, df1, df2: effective ridge and degrees of freedom, see the top of this file
    bias, variance:  their sum is the excess risk: what a fresh example costs beyond its own noise
    """

    kappa: float
    df1: float
    df2: float
    bias: float
    variance: float


def effective_ridge(eigenvalues: Num[Array, " r"], n: int, ridge: SupportsFloat) -> float:
    """Effective ridge κ: the positive root of Σ_i s_i/(s_i + κ) = n − nλ/κ.

    eigenvalues: s_i ≥ 0 of the population, in any order; n: examples (times outputs for a full kernel of several);
    ridge: λ ≥ 0 on the normalised problem, (1/n) Σ (y − f)² + λ‖θ‖². With λ = 0 every eigenvalue above zero counts, so
    set those below the numerical floor to zero first.

    The left side falls and the right side rises with κ, so there is one root, and it lies between max(λ,
    max_j s_(j) (j − n)/n), with s_(j) the j-th largest, and λ + Σs/n. It is found there to rounding.

    Cost: r a step, some ten steps. Raises `InputError` for unusable eigenvalues, n < 1, a negative ridge, and a ridge
    of zero with no more than n positive eigenvalues: such a fit has no implicit ridge.
    Source: Hastie, Montanari, Rosset & Tibshirani 2022, *Surprises in high-dimensional ridgeless least squares
    interpolation*, for correlated features; Bach 2024, *High-dimensional analysis of double descent for linear
    regression with random projections*, for κ with a penalty.
    """
    values = np.sort(nonnegative("effective_ridge", eigenvalues))[::-1]
    penalty = checked_scale("effective_ridge", "ridge", ridge)
    positive, problems = int(np.count_nonzero(values)), []
    if n < 1:
        problems.append(f"n is {n}; wanted at least one example")
    elif penalty == 0 and positive <= n:
        problems.append(
            f"got ridge 0 and {positive} positive eigenvalues for n = {n}; wanted more than n of them, or a ridge "
            "above zero: least squares with fewer features than examples has no implicit ridge"
        )
    refuse("effective_ridge", problems)
    beyond = np.arange(1, len(values) + 1) - n
    low = max(penalty, float(np.max(values * beyond / n)))
    high = penalty + float(values.sum()) / n

    def excess(log_kappa: float) -> float:
        kappa = np.exp(log_kappa)
        return float(np.sum(values / (values + kappa)) + n * (penalty / kappa - 1))

    # A hair wider than the bounds, which meet where all eigenvalues vanish beside the penalty.
    root = brentq(excess, np.log(low) - 1e-9, np.log(high) + 1e-9, xtol=1e-15, maxiter=200)
    return float(np.exp(np.asarray(root)))


def second_effective_dimension(eigenvalues: Num[Array, " r"], ridge: SupportsFloat) -> float:
    """df2 = Σ_j (s_j/(s_j + ν))² at ridge ν > 0: at most `effective_dimension`, the df1 of the same ν.

    σ² df2/n would be the variance if n examples had the population's covariance exactly; `ridge_risk` has what it is
    for a sample, σ² df2/(n − df2) at ν = κ. Cost: r. Raises `InputError` unless ν > 0.
    Source: Hastie et al. 2022, for correlated features.
    """
    values, penalty = nonnegative("second_effective_dimension", eigenvalues), float(ridge)
    if not penalty > 0:
        raise InputError("second_effective_dimension: got a ridge that is not above zero; wanted ν > 0")
    return float(np.sum(np.square(values / (values + penalty))))


def ridge_risk(
    eigenvalues: Num[Array, " r"], energy: Num[Array, "..."], noise: SupportsFloat, n: int, ridge: SupportsFloat
) -> RidgeRisk:
    """Expected excess risk of ridge regression on n examples, from population quantities alone.

        bias = Σ_i e_i (κ/(s_i + κ))² · n/(n − df2),        variance = σ² df2/(n − df2).

    eigenvalues, n, ridge: as in `effective_ridge`, s_i in the order of the energies
    energy: `[r]`, e_i ≥ 0, mean square of the target along eigenfunction i; for a linear target θ it is s_i ⟨u_i, θ⟩²
    noise:  σ² ≥ 0, variance of the noise; the trace of its covariance for several outputs

    A deterministic equivalent: relative errors are O(1/n), and larger where n − df2 is of the order of one (λ = 0 and
    about n features). Cost: that of κ. Raises `InputError` as `effective_ridge` does, and for energies or noise that
    are negative or not finite.
    Source: Hastie et al. 2022, for correlated features; for kernels Canatar, Bordelon & Pehlevan 2021.
    """
    values, parts = nonnegative("ridge_risk", eigenvalues), np.asarray(energy, np.float64)
    if parts.shape != values.shape or not np.all(parts >= 0) or not np.all(np.isfinite(parts)):
        raise InputError(
            f"ridge_risk: got energies of shape {list(parts.shape)} for {len(values)} eigenvalues; "
            "wanted one for each, finite and at least zero"
        )
    spread, penalty = checked_scale("ridge_risk", "noise", noise), float(ridge)
    kappa = effective_ridge(values, n, penalty)
    df2 = second_effective_dimension(values, kappa)
    free = _free(values, kappa, n, penalty)
    return RidgeRisk(
        kappa=kappa,
        df1=float(effective_dimension(values, kappa)),
        df2=df2,
        bias=float(np.sum(parts * np.square(kappa / (values + kappa)))) * n / free,
        variance=spread * df2 / free,
    )


def _free(values: Float[np.ndarray, " r"], kappa: float, n: int, ridge: float) -> float:
    """What is left of the examples, n − df2 = nλ/κ + (df1 − df2), as terms above zero: df2 ≈ n would cancel."""
    shares = values / (values + kappa)
    return n * ridge / kappa + float(np.sum(shares * (kappa / (values + kappa))))
