"""A Gaussian hidden Markov model of pretraining, and the head that would be best on its representations.

Hidden states z ∈ R^d move by z_{i+1} = z_i A + ε, ε ~ N(0, σ_ε² I); the representation of a token is x = zWᵀ + u ∈ R^p,
u ~ N(0, σ_u² I); the target of head tuning is the next state, y = zA + ε. With z stationary, of covariance S,
everything about (x, y) follows from what x says of z, a Gaussian of mean xWP/σ_u² and covariance

    P = σ_u² (σ_u² I + S WᵀW)⁻¹ S :

    Σ = Cov(x) = WSWᵀ + σ_u² I,     B* = Σ⁻¹WSA = WPA/σ_u²,     Ω = Cov(y | x) = AᵀPA + σ_ε² I.

States are rows, so S solves S = AᵀSA + σ_ε² I. The model's complexity is p, the width of its representation.
Source: Luo, Wang & Huang 2024, arXiv 2410.00699, for the model. The formulas are derived here, not taken from there.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float, Num

from ntkft._errors import refuse
from ntkft._types import Array


@dataclass(frozen=True, eq=False)
class GaussianHMM:
    """One model, from `gaussian_hmm` or `rotating_hmm`, which check it; all matrices in float64.

    transition: A `[d, d]`; emission: W `[p, d]`; sigma_u: σ_u > 0; sigma_epsilon2: σ_ε² ≥ 0
    state_covariance: S `[d, d]`, that of the stationary state
    """

    transition: Float[np.ndarray, "d d"]
    emission: Float[np.ndarray, "p d"]
    sigma_u: float
    sigma_epsilon2: float
    state_covariance: Float[np.ndarray, "d d"]

    @property
    def p(self) -> int:
        """Width of the representation."""
        return self.emission.shape[0]

    @property
    def d(self) -> int:
        """Dimension of the hidden state."""
        return self.emission.shape[1]

    @property
    def state_root(self) -> Float[np.ndarray, "d d"]:
        """The symmetric root of S. Cost: d³."""
        values, vectors = np.linalg.eigh(self.state_covariance)
        return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T

    @property
    def posterior_covariance(self) -> Float[np.ndarray, "d d"]:
        """P = Cov(z | x), the same for every x. Cost: d³ + pd²."""
        gram = self.state_covariance @ self.emission.T @ self.emission
        noise = self.sigma_u**2
        posterior = np.linalg.solve(noise * np.eye(self.d) + gram, noise * self.state_covariance)
        return (posterior + posterior.T) / 2

    @property
    def covariance(self) -> Float[np.ndarray, "p p"]:
        """Σ = Cov(x) = WSWᵀ + σ_u² I. Cost: p²d."""
        return self.emission @ self.state_covariance @ self.emission.T + self.sigma_u**2 * np.eye(self.p)

    @property
    def best_head(self) -> Float[np.ndarray, "p d"]:
        """B* = Σ⁻¹WSA, the linear head of least risk: xB* = E(y | x). Cost: d³ + pd²."""
        return self.emission @ (self.posterior_covariance @ self.transition) / self.sigma_u**2

    @property
    def noise_covariance(self) -> Float[np.ndarray, "d d"]:
        """Ω = Cov(y | x) = Aᵀ[S − SWᵀΣ⁻¹WS]A + σ_ε² I: what no head on x can predict. Cost: d³ + pd²."""
        seen = self.transition.T @ self.posterior_covariance @ self.transition
        return seen + self.sigma_epsilon2 * np.eye(self.d)


def gaussian_hmm(
    transition: Num[Array, "..."], emission: Num[Array, "..."], sigma_u: float, sigma_epsilon2: float
) -> GaussianHMM:
    """The model with these matrices, `[d, d]` and `[p, d]`, and its stationary state, S = AᵀSA + σ_ε² I.

    Cost: d³. Raises `InputError` for other shapes, entries that are not finite, a spectral radius of A of one or more
    (no stationary state), σ_u ≤ 0 (Σ could be singular) and σ_ε² < 0.
    """
    a, w = np.asarray(transition, np.float64), np.asarray(emission, np.float64)
    problems = _noise_problems(sigma_u)
    if not (w.ndim == 2 and w.size and a.shape == (w.shape[1],) * 2):
        problems.append(
            f"got a transition of shape {list(a.shape)}, an emission of {list(w.shape)}; wanted d×d and p×d"
        )
    elif not (np.all(np.isfinite(a)) and np.all(np.isfinite(w))):
        problems.append("transition or emission has entries that are NaN or infinite")
    elif (radius := float(np.max(np.abs(np.linalg.eigvals(a))))) >= 1:
        problems.append(
            f"the spectral radius of the transition is {radius:.4g}; wanted it below 1, or no state is stationary"
        )
    if not 0 <= sigma_epsilon2 < np.inf:
        problems.append(f"sigma_epsilon2 is {sigma_epsilon2:g}; wanted a finite variance of at least zero")
    refuse("gaussian_hmm", problems)
    stationary = scipy.linalg.solve_discrete_lyapunov(a.T, sigma_epsilon2 * np.eye(len(a)))
    return GaussianHMM(a, w, float(sigma_u), float(sigma_epsilon2), (stationary + stationary.T) / 2)


def rotating_hmm(d: int, p: int, rho: float, sigma_u: float, seed: int) -> GaussianHMM:
    """A = ρ · orthogonal, σ_ε² = 1 − ρ², so that S = I; W with standard normal entries.

    Of one seed, A is the same for every p, and the rows of W for a smaller p are the first of those for a larger one:
    a sweep over p widens one representation. Risks depend on ρ and not on the orthogonal factor, which is uniform.

    Cost: d³ + pd. Raises `InputError` for sizes below one, a negative seed, ρ outside [0, 1) and σ_u ≤ 0.
    """
    problems = _noise_problems(sigma_u)
    problems += [f"{name} is {size}; wanted at least 1" for name, size in (("d", d), ("p", p)) if size < 1]
    if not 0 <= rho < 1:
        problems.append(f"rho is {rho:g}; wanted 0 ≤ rho < 1, or no state is stationary")
    if seed < 0:
        problems.append(f"seed is {seed}; wanted a whole number of at least 0")
    refuse("rotating_hmm", problems)
    q, r = np.linalg.qr(np.random.default_rng([seed, 0]).standard_normal((d, d)))
    rotation = q * np.sign(np.diag(r))  # the signs make the distribution uniform over rotations
    emission = np.random.default_rng([seed, 1]).standard_normal((p, d))
    return GaussianHMM(rho * rotation, emission, float(sigma_u), 1 - float(rho) ** 2, np.eye(d))


def _noise_problems(sigma_u: float) -> list[str]:
    wanted = "wanted a finite number above zero; without noise in the representation its covariance can be singular"
    return [] if 0 < sigma_u < np.inf else [f"sigma_u is {sigma_u:g}; {wanted}"]
