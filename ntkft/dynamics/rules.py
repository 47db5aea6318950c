"""Every stopping rule that reads one spectrum and one residual, with its plug-ins, and how far noise moves each.

The plug-ins: σ from the residual at the epoch that generalised cross-validation picks, C_H from rᵀ(𝕂 + nν⁻¹)⁻¹r with
ν = ε·epochs. Hold-out needs examples beside these: `holdout_curve`, `holdout_stopping`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import index
from typing import SupportsFloat, SupportsIndex

import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import refuse
from ntkft._types import Array
from ntkft.dynamics.filters import gradient_descent, remaining
from ntkft.dynamics.plug_ins import TargetNorm, estimate_noise, estimate_target_norm
from ntkft.dynamics.selection import gcv, sure
from ntkft.dynamics.stopping import krr_stopping, stopping_time
from ntkft.spectra.eigen import Spectrum, coordinates


@dataclass(frozen=True)
class Stops:
    """When each rule stops.

    sigma, norm: the plug-ins that the rules were given
    epochs:      rule → epoch; infinite for a rule that never fires, a fraction for the ridge rule's ν̂/ε
    """

    sigma: float
    norm: TargetNorm
    epochs: Mapping[str, float]


def spectral_rules(
    spectrum: Spectrum, residual: Num[Array, "..."], *, step_size: SupportsFloat, epochs: SupportsIndex
) -> Stops:
    """Stopping epochs of full-batch gradient descent with this step size, among 0 … `epochs` where a rule searches.

    spectrum: of the normalised kernel that drives each output (eigenvalues of a trace kernel divided by k); residual:
    r = y − f_PT(X), `[n]` or `[n, k]`. The rules: the unit-norm rule and the one with C_H (`stopping_time`), the latter
    with the norm corrected for noise too, kernel ridge (`krr_stopping`), `sure` and `gcv`.

    Cost: r² k + r·epochs. Raises `InputError` as these do.
    Source: Raskutti, Wainwright & Yu 2014; Sun & Raskutti 2026, eq. 11, corrected; Stein 1981; Craven & Wahba 1979.
    """
    last, epsilon = index(epochs), float(step_size)
    descent, every = gradient_descent(epsilon), np.arange(last + 1)
    eigenvalues = np.maximum(spectrum.eigenvalues, 0)
    validated = gcv(spectrum, residual, descent, every)
    sigma = estimate_noise(spectrum, residual, descent, validated.best)
    penalty = max(spectrum.n / (epsilon * max(last, 1)), spectrum.n * spectrum.floor)
    norm = estimate_target_norm(spectrum, residual, ridge=penalty, sigma=sigma)
    found = {
        "rule, unit norm": stopping_time(eigenvalues, sigma, epsilon),
        "rule, C_H plug-in": stopping_time(eigenvalues, sigma, epsilon, norm.plug_in),
        "rule, C_H less noise": stopping_time(eigenvalues, sigma, epsilon, norm.corrected),
        "kernel ridge rule": krr_stopping(eigenvalues, sigma, norm.plug_in) / epsilon,
        "SURE": sure(spectrum, residual, sigma, descent, every).best,
        "GCV": validated.best,
    }
    return Stops(sigma, norm, {name: float(epoch) for name, epoch in found.items()})


def rule_intervals(
    spectrum: Spectrum,
    residual: Num[Array, "..."],
    *,
    step_size: SupportsFloat,
    epochs: SupportsIndex,
    draws: SupportsIndex,
    level: SupportsFloat,
    seed: SupportsIndex,
) -> dict[str, tuple[float, float]]:
    """Parametric bootstrap: rule → the interval that holds the share `level` of its epochs over redrawn noise.

    The design is fixed, as in the theory. Each draw is a residual m + σ̂ξ with independent Gaussian ξ, where m is what
    gradient descent has fitted at the epoch that cross-validation picks and σ̂ the plug-in; all plug-ins are estimated
    anew from it. The interval speaks of noise in the labels, not of other examples.

    Cost: `draws` times `spectral_rules`, and no further eigendecomposition. Raises `InputError` for fewer than two
    draws, a level outside (0, 1), and as `spectral_rules` does.
    Source: Efron & Tibshirani 1993, ch. 6.5, the percentile interval.
    """
    count, share, last = index(draws), float(level), index(epochs)
    refuse(
        "rule_intervals",
        ([f"draws is {count}; wanted at least 2"] if count < 2 else [])
        + ([f"level is {share:g}; wanted a share between 0 and 1, such as 0.9"] if not 0 < share < 1 else []),
    )
    fitted, sigma = _fitted(spectrum, residual, float(step_size), last)
    generator = np.random.default_rng(index(seed))
    stops = [
        spectral_rules(
            spectrum, fitted + sigma * generator.standard_normal(fitted.shape), step_size=step_size, epochs=last
        ).epochs
        for _ in range(count)
    ]
    ends = [round((count - 1) * edge) for edge in ((1 - share) / 2, (1 + share) / 2)]
    ordered = {name: sorted(draw[name] for draw in stops) for name in stops[0]}
    return {name: (found[ends[0]], found[ends[1]]) for name, found in ordered.items()}


def _fitted(
    spectrum: Spectrum, residual: Num[Array, "..."], epsilon: float, last: int
) -> tuple[Float[np.ndarray, "..."], float]:
    """What gradient descent has fitted of the residual at the epoch that cross-validation picks, and σ̂ there."""
    descent = gradient_descent(epsilon)
    best = gcv(spectrum, residual, descent, np.arange(last + 1)).best
    learnt = 1 - remaining(descent, spectrum.eigenvalues, [float(best)])[0]
    mean = spectrum.eigenvectors @ (learnt[:, None] * coordinates(spectrum, residual))
    return mean.reshape(np.shape(residual)), estimate_noise(spectrum, residual, descent, best)
