"""Monte Carlo of head tuning on a Gaussian HMM: heads that were really fitted, judged exactly."""

from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from ntkft._errors import refuse
from ntkft.hmm.gaussian import GaussianHMM
from ntkft.hmm.head import fit_head


@dataclass(frozen=True)
class SimulatedRisk:
    """Mean excess risk over `reps` independent training sets and its standard error.

    Near p = n the risk has no mean or no variance: there the two describe these draws and estimate nothing.
    """

    n: int
    p: int
    ridge: float
    reps: int
    excess: float
    standard_error: float


def simulate_head(model: GaussianHMM, n: int, ridge: SupportsFloat, *, reps: int, seed: int) -> SimulatedRisk:
    """Draw n independent pairs (x, y), fit the head, take its excess risk tr (B − B*)ᵀΣ(B − B*); `reps` times.

    The model, W included, stays the same; its risk over fresh examples is computed, not sampled.
    Cost: per repetition one SVD of an n × p matrix. Raises `InputError` for n < 1, reps < 2, a negative seed or ridge.
    """
    problems = [f"{name} is {got}; wanted at least {least}"
                for name, got, least in (("n", n, 1), ("reps", reps, 2), ("seed", seed, 0)) if got < least]  # fmt: skip
    refuse("simulate_head", problems)
    generator, best = np.random.default_rng([seed, 2, model.p]), model.best_head
    root, risks = model.state_root, np.empty(reps)
    # Matrices this small gain nothing from a second BLAS thread, and wait for it where cores are busy.
    with threadpool_limits(1, "blas"):
        for rep in range(reps):
            x, y = _draw(model, n, root, generator)
            error = fit_head(x, y, ridge) - best
            # Σ = (W√S)(W√S)ᵀ + σ_u² I, so its p × p matrix is not needed.
            seen = np.sum(np.square(root @ model.emission.T @ error))
            risks[rep] = seen + model.sigma_u**2 * np.sum(np.square(error))
    return SimulatedRisk(n, model.p, float(ridge), reps, float(risks.mean()), float(risks.std(ddof=1) / np.sqrt(reps)))


def _draw(
    model: GaussianHMM, n: int, root: Float[np.ndarray, "d d"], generator: np.random.Generator
) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "n d"]]:
    """Representations and next states of n independent stationary states."""
    z = generator.standard_normal((n, model.d)) @ root
    x = z @ model.emission.T + model.sigma_u * generator.standard_normal((n, model.p))
    y = z @ model.transition + np.sqrt(model.sigma_epsilon2) * generator.standard_normal((n, model.d))
    return x, y
