"""Risk of a head tuned on n examples, over the width p of the representation: two descents and the peak between them.

The head is fitted by least squares to n independent pairs (x, y) of a Gaussian HMM, of least norm when it interpolates,
or with a ridge penalty. Noise and representation are independent there, so the risk is noise + bias + variance, and of
the three only the noise, tr Ω(p), belongs to the representation. The *excess* risk, bias + variance, is lowest at
p → 0, where nothing is fitted; the *total* risk is not, because a narrow representation says little about the state.
A statement about one is none about the other, so both are reported.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, SupportsFloat, TypeAlias

import numpy as np
from jaxtyping import Float

from ntkft._errors import InputError
from ntkft.hmm.gaussian import GaussianHMM, rotating_hmm
from ntkft.spectra import ridge_risk
from ntkft.spectra.complexity import checked_scale

Regime: TypeAlias = Literal["classical", "threshold", "interpolating", "ridge"]
"""p ≤ n − 2; |p − n| ≤ 1; p ≥ n + 2; or any p with a penalty."""


@dataclass(frozen=True)
class HeadRisk:
    """Expected risk of one tuned head, summed over the d outputs; infinite where its expectation is.

    noise: tr Ω(p), what the best head risks; bias, variance: what tuning adds to it
    """

    n: int
    p: int
    ridge: float
    regime: Regime
    noise: float
    bias: float
    variance: float

    @property
    def excess(self) -> float:
        """E tr (B − B*)ᵀΣ(B − B*) = bias + variance."""
        return self.bias + self.variance

    @property
    def total(self) -> float:
        """E‖y − xB‖² = noise + excess."""
        return self.noise + self.excess


def head_risk(model: GaussianHMM, n: int, ridge: SupportsFloat) -> HeadRisk:
    """Expected risk of the head tuned on n examples with penalty λ ≥ 0 on (1/n)‖Y − XB‖²; 0: the one of least norm.

        λ = 0, p ≤ n − 2     no bias, variance tr Ω · p/(n − p − 1); exact
        λ = 0, |p − n| ≤ 1   the variance is infinite
        λ = 0, p ≥ n + 2     `ridge_risk` of the spectrum of Σ with its effective ridge; also wherever λ > 0

    `ridge_risk` is a limit. For λ = 0 and p > n it is too low by a share of about 1/(p − n): 2 % at n = 100, p = 150, a
    tenth at p = 110. As λ → 0 below the threshold it becomes tr Ω · p/(n − p), which lacks the exact formula's −1.

    Cost: d³ + pd². Raises `InputError` for n < 1 and a negative ridge.
    Source: the exact part is the mean of an inverse Wishart matrix; the limit is that of Hastie et al. 2022.
    """
    penalty, p = checked_scale("head_risk", "ridge", ridge), model.p
    if n < 1:
        raise InputError(f"head_risk: n is {n}; wanted at least one example")
    noise = float(np.trace(model.noise_covariance))
    if penalty == 0 and p <= n:
        regime, variance = ("classical", noise * p / (n - p - 1)) if p <= n - 2 else ("threshold", np.inf)
        return HeadRisk(n, p, penalty, regime, noise, 0.0, variance)
    found = ridge_risk(*_target_spectrum(model), noise, n, penalty)
    if penalty == 0 and p == n + 1:
        return HeadRisk(n, p, penalty, "threshold", noise, found.bias, np.inf)
    regime = "ridge" if penalty else "interpolating"
    return HeadRisk(n, p, penalty, regime, noise, found.bias, found.variance)


def complexity_sweep(
    widths: Iterable[int], *, n: int, d: int, rho: float, sigma_u: float, ridge: SupportsFloat, seed: int
) -> list[HeadRisk]:
    """`head_risk` of `rotating_hmm` at every width, one representation growing. Raises what those two raise."""
    return [head_risk(rotating_hmm(d, p, rho, sigma_u, seed), n, ridge) for p in widths]


def width_grid(n: int, largest: int) -> list[int]:
    """Widths 1 … `largest` at which to draw a curve, even in log p, and in log |p − n| beside the threshold."""
    offsets = np.geomspace(1, max(n // 2, 1), 24)
    widths = np.concatenate([np.geomspace(1, max(largest, 1), 96), n - offsets, [n], n + offsets])
    return [int(p) for p in np.unique(np.rint(widths)) if 1 <= p <= largest]


def _target_spectrum(model: GaussianHMM) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Eigenvalues s_i of Σ and the energy s_i ‖u_iᵀB*‖² of the best head along them, from a p × d factor.

    All but d eigenvalues are σ_u², and B* has nothing there: it lies in the span of W.
    """
    left, singular, _ = np.linalg.svd(model.emission @ model.state_root, full_matrices=False)
    eigenvalues, energy = np.full(model.p, model.sigma_u**2), np.zeros(model.p)
    eigenvalues[: len(singular)] += singular**2
    energy[: len(singular)] = eigenvalues[: len(singular)] * np.sum(np.square(left.T @ model.best_head), axis=1)
    return eigenvalues, energy
