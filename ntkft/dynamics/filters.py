"""Training algorithms as spectral filters: what t steps have made of each eigendirection, in closed form.

Every algorithm here is linear in the residual r, so after t steps its outputs anywhere are

    f_t(x) = f_PT(x) + (1/n) 𝕂(x, X) U m_t(λ̂) Uᵀ r,

with one function m_t per algorithm, the *multiplier*. λ̂ m_t(λ̂) is the share of an eigendirection that has been
learnt: it rises from 0 to 1, and m_t(λ̂) → tε as λ̂ → 0. A filter maps eigenvalues `[r]` and step counts `[s]` to
multipliers `[s, r]`; there is no loop over steps. Eigenvalues that rounding made negative count as zero.

Cost: r·s, whatever the number of steps (heavy ball: times the bits of the largest step count).
"""

from collections.abc import Sequence
from typing import Protocol, SupportsFloat, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import InputError
from ntkft._types import Array
from ntkft.spectra.complexity import nonnegative

Steps: TypeAlias = Num[Array, " s"] | Sequence[float | int]
"""Step counts t ≥ 0 in any order; whole numbers where the algorithm has discrete steps."""


@runtime_checkable
class SpectralFilter(Protocol):
    """A training algorithm, seen on the eigenvalues of the normalised kernel."""

    def __call__(self, eigenvalues: Num[Array, " r"], steps: Steps) -> Float[np.ndarray, "s r"]:
        """Multipliers m_t(λ̂) `[s, r]`."""
        ...


def gradient_descent(step_size: SupportsFloat) -> SpectralFilter:
    """Full-batch gradient descent: m_t(λ̂) = (1 − (1 − ελ̂)^t)/λ̂, for whole t.

    Also right where 1 − ελ̂ is negative (1 < ελ̂ < 2: the direction oscillates), and accurate where ελ̂ is tiny. The
    filter raises `InputError` for ε ≥ 2/λ̂₁, where training diverges, and for steps that are not whole numbers ≥ 0.
    Source: Raskutti, Wainwright & Yu 2014, the update before their Theorem 1.
    """
    epsilon = checked_positive("gradient_descent", "step size", step_size)

    def multipliers(eigenvalues: Num[Array, " r"], steps: Steps) -> Float[np.ndarray, "s r"]:
        values, times = nonnegative("gradient_descent", eigenvalues), whole_steps("gradient_descent", steps)[:, None]
        refuse_unstable("gradient_descent", epsilon, values, limit=2.0)
        # log|1 − ελ̂|; at ελ̂ = 1 one step learns all, which −inf says.
        rate = epsilon * values[None]
        with np.errstate(divide="ignore"):
            log_factor = np.where(rate < 1, np.log1p(-np.minimum(rate, 1)), np.log(np.maximum(rate - 1, 0)))
        exponent = times * np.where(times > 0, log_factor, 0.0)  # 0 · −inf would be NaN
        flipped = (rate > 1) & (times % 2 == 1)
        learnt = np.where(flipped, 1 + np.exp(exponent), -np.expm1(exponent))
        return _divide(learnt, values, times * epsilon)

    return multipliers


def gradient_flow(step_size: SupportsFloat) -> SpectralFilter:
    """Gradient flow at time η = εt: m_t(λ̂) = (1 − e^{−εtλ̂})/λ̂, for real t ≥ 0. Stable at every step size."""
    epsilon = checked_positive("gradient_flow", "step size", step_size)

    def multipliers(eigenvalues: Num[Array, " r"], steps: Steps) -> Float[np.ndarray, "s r"]:
        values, eta = nonnegative("gradient_flow", eigenvalues), epsilon * real_steps("gradient_flow", steps)[:, None]
        return _divide(-np.expm1(-eta * values[None]), values, eta)

    return multipliers


def ridge(step_size: SupportsFloat) -> SpectralFilter:
    """Kernel ridge regression with the penalty that answers to t steps, λ_ridge = 1/(εt): m_t(λ̂) = 1/(λ̂ + 1/(εt)).

    The penalty belongs to the normalised problem (1/2n)‖y − f‖² + (λ_ridge/2)‖f − f_PT‖²_H. For a penalty of your own
    take `ridge(1.0)` at steps 1/λ_ridge. Sun & Raskutti 2026 print λ = εT (eq. 27), the inverse of what agrees with
    gradient flow for small η.
    """
    epsilon = checked_positive("ridge", "step size", step_size)

    def multipliers(eigenvalues: Num[Array, " r"], steps: Steps) -> Float[np.ndarray, "s r"]:
        values, eta = nonnegative("ridge", eigenvalues), epsilon * real_steps("ridge", steps)[:, None]
        return eta / (1 + eta * values[None])

    return multipliers


def heavy_ball(step_size: SupportsFloat, momentum: SupportsFloat) -> SpectralFilter:
    """Full-batch gradient descent with heavy-ball momentum β: v ← βv + ε∇, θ ← θ − v, from v = 0.

    In an eigendirection the multiplier m and its velocity v obey m ← m + v′, v′ = βv + ε(1 − λ̂m): an affine map of the
    plane, whose t-th power is assembled from its repeated squares. With β = 0 it is gradient descent.
    The filter raises `InputError` for ε ≥ 2(1 + β)/λ̂₁, where training diverges, and for steps that are not whole.
    Source: Polyak 1964.
    """
    epsilon, beta = checked_positive("heavy_ball", "step size", step_size), float(momentum)
    if not 0 <= beta < 1:
        raise InputError(f"heavy_ball: momentum is {beta:g}; wanted 0 ≤ momentum < 1")

    def multipliers(eigenvalues: Num[Array, " r"], steps: Steps) -> Float[np.ndarray, "s r"]:
        values, times = nonnegative("heavy_ball", eigenvalues), whole_steps("heavy_ball", steps).astype(np.int64)
        refuse_unstable("heavy_ball", epsilon, values, limit=2 * (1 + beta))
        power = np.zeros((len(values), 3, 3))  # acts on (m, v, 1)
        power[:, :2, 0] = -epsilon * values[:, None]
        power[:, 0, 0] += 1
        power[:, :2, 1], power[:, :2, 2], power[:, 2, 2] = beta, epsilon, 1
        state = np.zeros((len(times), len(values), 3))
        state[..., 2] = 1
        for bit in range(int(times.max(initial=0)).bit_length()):
            odd = times >> bit & 1 == 1
            state[odd] = np.einsum("rij,srj->sri", power, state[odd])
            power = power @ power
        return state[..., 0]

    return multipliers


def remaining(spectral_filter: SpectralFilter, eigenvalues: Num[Array, " r"], steps: Steps) -> Float[np.ndarray, "s r"]:
    """1 − λ̂ m_t(λ̂), the share of each eigendirection of the residual that is still to be learnt."""
    values = nonnegative("remaining", eigenvalues)
    return 1 - values[None] * spectral_filter(values, steps)


def refuse_unstable(what: str, step_size: float, eigenvalues: Num[Array, " r"], *, limit: float) -> None:
    """Raise `InputError` for a step size at or above limit/λ̂₁, where gradient descent diverges."""
    largest = float(np.max(np.asarray(eigenvalues), initial=0.0))
    if step_size * largest >= limit:
        raise InputError(
            f"{what}: step size {step_size:g} is at or above the stability limit {limit:g}/λ̂₁ = {limit / largest:.4g} "
            f"(λ̂₁ = {largest:.4g}), where training diverges; take a smaller one, such as 1/λ̂₁ = {1 / largest:.4g}"
        )


def real_steps(what: str, steps: Steps) -> Float[np.ndarray, " s"]:
    """Step counts as float64, or `InputError` unless they are a list of finite numbers ≥ 0."""
    times = np.asarray(steps, np.float64)
    if times.ndim != 1 or not np.all(np.isfinite(times) & (times >= 0)):
        raise InputError(f"{what}: got steps {np.asarray(steps)!r}; wanted a list of finite numbers, zero or above")
    return times


def whole_steps(what: str, steps: Steps) -> Float[np.ndarray, " s"]:
    """Step counts as float64, or `InputError` unless they are whole numbers ≥ 0."""
    times = real_steps(what, steps)
    if bad := times[times != np.floor(times)].tolist():
        raise InputError(f"{what}: step {bad[0]:g} is not whole; use gradient_flow for times between steps")
    return times


def checked_positive(what: str, name: str, value: SupportsFloat) -> float:
    """A finite number above zero, or `InputError`."""
    number = float(value)
    if not 0 < number < np.inf:
        raise InputError(f"{what}: {name} is {number:g}; wanted a finite number above zero")
    return number


def _divide(learnt: np.ndarray, eigenvalues: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Learnt `[s, r]` over eigenvalues `[r]`, with the limit εt `[s, 1]` where an eigenvalue is zero."""
    positive = eigenvalues > 0
    quotient = learnt / np.where(positive, eigenvalues, 1.0)[None]
    return np.where(positive[None], quotient, limit)
