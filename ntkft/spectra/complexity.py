"""How rich a kernel is at a given scale: local Rademacher complexity, critical radius, effective rank and dimension.

All of them read the eigenvalues of the *normalised* matrix K = 𝕂/n and must be given **all** of them, zeros and
rounding noise included: the complexity is a mean over the matrix's order, taken to be the number of eigenvalues passed.
Eigenvalues that rounding made negative count as zero.
"""

from typing import SupportsFloat

import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import InputError, refuse
from ntkft._types import Array


def local_rademacher(
    eigenvalues: Num[Array, " r"], rho: SupportsFloat | Num[Array, "..."]
) -> float | Float[np.ndarray, "..."]:
    """Local empirical Rademacher complexity R̂_K(ρ) = [(1/r) Σ_i min(λ̂_i, ρ²)]^{1/2}; a float, or of the shape of `rho`.

    eigenvalues: all r eigenvalues of the normalised kernel, in any order; rho: radii ≥ 0, infinity allowed.
    With k outputs per example r = nk; the rules of `ntkft.dynamics.stopping` say what this does to the norm.

    Cost: one sort, then log r per radius. Raises `InputError` for eigenvalues that are not finite or clearly negative,
    and for negative radii.
    Source: Raskutti, Wainwright & Yu 2014, the definition before their Theorem 1.
    """
    values = np.sort(nonnegative("local_rademacher", eigenvalues))
    squared = np.square(np.asarray(rho, np.float64))
    if not np.all(np.asarray(rho, np.float64) >= 0):
        raise InputError("local_rademacher: got a radius that is negative or NaN; wanted rho ≥ 0")
    below = np.searchsorted(values, squared)
    # inf · 0 eigenvalues above it is 0, not NaN.
    above = np.where(below < len(values), squared, 0.0) * (len(values) - below)
    result = np.sqrt((np.concatenate([[0.0], np.cumsum(values)])[below] + above) / len(values))
    return float(result) if result.ndim == 0 else result


def critical_radius(eigenvalues: Num[Array, " r"], sigma: SupportsFloat, norm: SupportsFloat = 1.0) -> float:
    """Critical radius: the smallest ε̂ > 0 with R̂_K(ε̂) ≤ C ε̂²/(2eσ), found exactly.

    sigma: noise standard deviation σ ≥ 0; norm: C = ‖f* − f_PT‖_H, the size of what is to be learnt.

    The norm enters linearly, as in the stopping rule: dividing the targets by C gives the problem of Raskutti,
    Wainwright & Yu for a unit-norm target and noise σ/C. ε̂ is a radius of that unit-norm problem; in the target's own
    units it is C ε̂, and the bound on the risk at the stopping time reads 12 C² ε̂². The stopping time is
    ⌊1/(step_size · ε̂²)⌋.

    0 when σ = 0 or all eigenvalues are zero (nothing limits training), infinity when norm = 0 (nothing to learn).
    Cost: one sort. Raises `InputError` for bad eigenvalues, negative sigma or norm.
    Source: Raskutti, Wainwright & Yu 2014, Theorem 1; the norm: Sun & Raskutti 2026, eq. 11, which prints C² where
    rescaling gives C.
    """
    return float(np.sqrt(balance(eigenvalues, sigma, norm, 2 * np.e, "critical_radius")))


def participation_ratio(eigenvalues: Num[Array, " r"]) -> float:
    """Effective rank as participation ratio (Σλ̂)²/Σλ̂²: r for a flat spectrum, 1 for rank one. Cost: r."""
    values = nonnegative("participation_ratio", eigenvalues)
    _refuse_zero("participation_ratio", values)
    shares = values / values.sum()
    return float(1 / np.sum(shares**2))


def entropy_rank(eigenvalues: Num[Array, " r"]) -> float:
    """Effective rank exp(−Σ p_j log p_j), p = λ̂/Σλ̂; never below the participation ratio. Cost: r.

    Source: Roy & Vetterli 2007, *The effective rank*, definition 1, with eigenvalues for singular values.
    """
    values = nonnegative("entropy_rank", eigenvalues)
    _refuse_zero("entropy_rank", values)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def effective_dimension(
    eigenvalues: Num[Array, " r"], ridge: SupportsFloat | Num[Array, "..."]
) -> float | Float[np.ndarray, "..."]:
    """Effective dimension Σ_j λ̂_j/(λ̂_j + ν) at ridge ν > 0 (≙ 1/η_t); a float, or of the shape of `ridge`.

    The degrees of freedom of kernel ridge regression. Cost: r per ridge. Raises `InputError` unless every ν > 0.
    Source: Zhang 2005, *Learning bounds for kernel regression using effective data dimensionality*.
    """
    values, ridges = nonnegative("effective_dimension", eigenvalues), np.asarray(ridge, np.float64)
    if not np.all(ridges > 0):
        raise InputError("effective_dimension: got a ridge that is not above zero; wanted ν > 0")
    result = np.sum(values / (values + ridges[..., None]), axis=-1)
    return float(result) if result.ndim == 0 else result


def balance(
    eigenvalues: Num[Array, " r"], sigma: SupportsFloat, norm: SupportsFloat, factor: float, what: str
) -> float:
    """Smallest u > 0 with R̂_K(√u) ≤ c·u, c = norm/(factor·σ), in closed form.

    With eigenvalues descending, Σ_i min(λ̂_i, u) = min_j (j·u + Σ_{i>j} λ̂_i). So the inequality holds as soon as one of
    the quadratics j·u + tail_j ≤ r c² u² does, and u is the smallest of their positive roots.
    """
    values = np.sort(nonnegative(what, eigenvalues))[::-1]
    noise, size = checked_scale(what, "sigma", sigma), checked_scale(what, "norm", norm)
    values = values[values > 0]
    if noise == 0 or not values.size:
        return 0.0
    if size == 0:
        return float("inf")
    count = np.arange(len(values) + 1)
    tail = np.append(np.cumsum(values[::-1])[::-1], 0.0)
    squared = len(np.asarray(eigenvalues)) * (size / (factor * noise)) ** 2
    return float(np.min((count + np.sqrt(count**2 + 4 * squared * tail)) / (2 * squared)))


def nonnegative(what: str, eigenvalues: Num[Array, " r"]) -> Float[np.ndarray, " r"]:
    """Eigenvalues in float64, what rounding made negative set to zero; raises `InputError` for unusable ones."""
    values = np.asarray(eigenvalues, np.float64)
    problems = []
    if not values.size:
        problems.append("got no eigenvalues; pass all eigenvalues of the normalised kernel")
    elif not np.all(np.isfinite(values)):
        problems.append(f"{int(np.sum(~np.isfinite(values)))} eigenvalues are NaN or infinite; mend the kernel first")
    elif values.min() < -1e-2 * values.max():
        problems.append(
            f"eigenvalue {values.min():.3g} is clearly negative (the largest is {values.max():.3g}); "
            "these are not eigenvalues of a kernel of gradients"
        )
    refuse(what, problems)
    return np.maximum(values, 0.0)


def checked_scale(what: str, name: str, value: SupportsFloat) -> float:
    """A finite number ≥ 0, or `InputError`."""
    number = float(value)
    if not 0 <= number < float("inf"):
        raise InputError(f"{what}: {name} is {number:g}; wanted a finite number, zero or above")
    return number


def _refuse_zero(what: str, values: np.ndarray) -> None:
    if not values.any():
        raise InputError(f"{what}: all eigenvalues are zero, which has no effective rank; check the kernel")
