"""What the theory promises before and after the stopping time, as bounds on the in-sample risk.

They hold for step sizes ε ≤ 1/λ̂₁; the risks themselves are in `ntkft.dynamics.selection`. With k outputs everything
here is a mean over outputs, `norm` included (the root mean square); the risks there are sums over outputs.
"""

from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from jaxtyping import Float, Num

from ntkft._types import Array
from ntkft.dynamics.filters import Steps, checked_positive, whole_steps
from ntkft.dynamics.stopping import stopping_time
from ntkft.spectra.complexity import checked_scale, critical_radius, local_rademacher


@dataclass(frozen=True, eq=False)
class RiskBounds:
    """Bounds on ‖f_t − f*‖²_n = (1/n) Σ_i (f_t(x_i) − f*(x_i))² at every step, `[s]`.

    bias2:    ≤ C²/(eη_t)
    variance: ≤ 5σ²η_t R̂_K²(1/√η_t), with high probability (the expectation needs no 5)
    upper:    ≤ 4C²/(eη_t) for t ≤ T̂, infinite after it
    lower:    ≥ (σ²/4) η_t R̂_K²(1/√η_t) in expectation for t > T̂, zero until then
    at_stop:  ≤ 12 C² ε̂² at T̂ itself
    """

    steps: Float[np.ndarray, " s"]
    bias2: Float[np.ndarray, " s"]
    variance: Float[np.ndarray, " s"]
    upper: Float[np.ndarray, " s"]
    lower: Float[np.ndarray, " s"]
    at_stop: float


def risk_bounds(
    eigenvalues: Num[Array, " r"],
    sigma: SupportsFloat,
    step_size: SupportsFloat,
    steps: Steps,
    norm: SupportsFloat = 1.0,
) -> RiskBounds:
    """Bounds on squared bias, variance and risk at every step; arguments as in `stopping_time`.

    Cost: one sort. Raises `InputError` as `stopping_time` does, and for steps that are not whole numbers ≥ 0.
    Source: Raskutti, Wainwright & Yu 2014, Theorem 1 and the lemma on bias and variance in its proof. For a target of
    norm C apply them to targets and noise divided by C and multiply by C², which leaves the variance and the lower
    bound alone.
    """
    noise, size = checked_scale("risk_bounds", "sigma", sigma), checked_scale("risk_bounds", "norm", norm)
    times = whole_steps("risk_bounds", steps)
    eta = checked_positive("risk_bounds", "step size", step_size) * times
    with np.errstate(divide="ignore"):
        inverse = 1 / eta
    # At η = 0 nothing has been learnt: no variance, and no bound on the bias.
    complexity = np.square(local_rademacher(eigenvalues, np.sqrt(inverse)))
    spread = noise**2 * eta * complexity
    bias2 = size**2 * inverse / np.e
    before = times <= stopping_time(eigenvalues, sigma, step_size, norm)
    return RiskBounds(
        steps=times,
        bias2=bias2,
        variance=5 * spread,
        upper=np.where(before, 4 * bias2, np.inf),
        lower=np.where(before, 0.0, spread / 4),
        at_stop=12 * size**2 * critical_radius(eigenvalues, sigma, norm) ** 2,
    )
