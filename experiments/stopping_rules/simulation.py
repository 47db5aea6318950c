"""A known target and known noise on a real kernel: do the bounds hold, and what do the plug-ins estimate?"""

from pathlib import Path

import numpy as np

from experiments.risk_prediction.setting import Problem, Setting
from ntkft.dynamics import bias_variance, gcv, gradient_descent, nested_rows, risk_bounds, spectral_rules, stopping_time
from ntkft.dynamics.filters import remaining
from ntkft.spectra import spectrum_of_matrix
from ntkft.spectra.eigen import coordinates

SIGMAS = (0.1, 0.3, 1.0, 3.0)
"""Noise, in units of the root mean square of the target."""
DRAWS, N = 50, 128


def simulate(problem: Problem, setting: Setting, step_size: float, folder: Path) -> list[dict]:
    """For each noise: exact bias and variance against their bounds, plug-ins and rules over redrawn noise."""
    n = min(N, setting.sizes[-1])
    (rows,) = nested_rows(len(problem.y), [n], seed=0)
    kernel = np.asarray(problem.kernel(problem.model.params, problem.pool, store=folder / "pool.zarr").total)
    spectrum = spectrum_of_matrix(kernel[np.ix_(rows, rows)], precision="float32")
    steps, descent = np.arange(10 * setting.epochs[-1] + 1), gradient_descent(step_size)
    residual = problem.y[rows]
    learnt = 1 - remaining(descent, spectrum.eigenvalues, [float(gcv(spectrum, residual, descent, steps).best)])[0]
    weights = learnt[:, None] * coordinates(spectrum, residual)
    target = spectrum.eigenvectors @ weights
    # The same directions that gradient descent has learnt have a finite norm: wᵀ(nΛ)⁻¹w over those above the floor.
    above = spectrum.eigenvalues > spectrum.floor
    norm = float(np.sqrt(np.sum(weights[above] ** 2 / (n * spectrum.eigenvalues[above, None]))))
    unit, generator, found = float(np.sqrt(np.mean(target**2))), np.random.default_rng(0), []
    for level in SIGMAS:
        sigma = level * unit
        exact = bias_variance(spectrum, target, sigma, descent, steps)
        bounds = risk_bounds(spectrum.eigenvalues, sigma, step_size, steps, norm)
        stop = stopping_time(spectrum.eigenvalues, sigma, step_size, norm)
        risk, later = exact.risk.values, slice(1, None)
        holds = [
            exact.bias2[later] <= bounds.bias2[later],
            exact.variance[later] <= bounds.variance[later],
            risk[later] <= bounds.upper[later],
            risk[later] >= bounds.lower[later],
        ]
        draws = [
            spectral_rules(
                spectrum, target + sigma * generator.standard_normal(target.shape), step_size=step_size,
                epochs=setting.epochs[-1],
            )
            for _ in range(DRAWS)
        ]  # fmt: skip
        clipped = int(min(stop, steps[-1]))
        found.append(
            {
                "n": n,
                "noise": level,
                "sigma": [draw.sigma / sigma for draw in draws],
                "plug_in": [draw.norm.plug_in / norm for draw in draws],
                "corrected": [draw.norm.corrected / norm for draw in draws],
                "claims": {
                    f"simulation, σ = {level:g} rms: bounds hold (1 or 0)": float(
                        np.all(holds) and (stop > steps[-1] or risk[int(stop)] <= bounds.at_stop)
                    ),
                    f"simulation, σ = {level:g} rms: best epoch / the rule's": exact.risk.best / max(clipped, 1),
                    f"simulation, σ = {level:g} rms: risk at the rule / lowest": float(risk[clipped] / risk.min()),
                    f"simulation, σ = {level:g} rms: estimated σ / σ, median": float(
                        np.median([draw.sigma for draw in draws]) / sigma
                    ),
                    f"simulation, σ = {level:g} rms: plug-in C_H / C_H, median": float(
                        np.median([draw.norm.plug_in for draw in draws]) / norm
                    ),
                },
            }
        )
    return found
