"""Estimates of what the stopping rules need and nobody knows: the noise σ and the norm C of what is to be learnt.

Both are read off the residual r = y − f_PT(X), and both mistake one for the other: a rough target looks like noise, and
noise looks like a target of large norm. Report them, and how the stopping time moves with them.
"""

from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from jaxtyping import Num

from ntkft._errors import InputError
from ntkft._types import Array
from ntkft.dynamics.filters import SpectralFilter, remaining
from ntkft.spectra.complexity import checked_scale, nonnegative
from ntkft.spectra.eigen import Spectrum, coordinates


def estimate_noise(
    spectrum: Spectrum, residual: Num[Array, "..."], spectral_filter: SpectralFilter, step: SupportsFloat
) -> float:
    """Estimate of σ from what is left of the residual: σ̂² = Σ_j s̃_j² ⟨u_j, r⟩² / (k Σ_j s̃_j²) after `step` steps.

    s̃_j = 1 − λ̂_j m_t(λ̂_j). σ̂² has expectation σ² plus the squared bias that is left at that step over Σ s̃²/n, so
    it is biased up, less and less with more steps while its spread grows; the step that minimises `gcv` is a fair
    choice.

    Cost: r² k. Raises `InputError` when the step leaves no degrees of freedom, and as the filter does.
    """
    weights, left = coordinates(spectrum, residual), remaining(spectral_filter, spectrum.eigenvalues, [float(step)])[0]
    freedom = weights.shape[1] * np.sum(left**2)
    if freedom < 1e-8:
        raise InputError(
            f"estimate_noise: step {float(step):g} fits the targets completely and leaves nothing to tell noise by; "
            "take an earlier step, such as the one that minimises gcv"
        )
    return float(np.sqrt(left**2 @ np.sum(weights**2, axis=1) / freedom))


@dataclass(frozen=True)
class TargetNorm:
    """Estimates of C = ‖f* − f_PT‖_H, as root mean square over outputs (what the stopping rules take).

    plug_in:   [rᵀ(𝕂 + ridge)⁻¹r / k]^{1/2}, biased up by the noise
    corrected: the same less the noise's expected share σ² tr(𝕂 + ridge)⁻¹, zero if that is larger
    """

    plug_in: float
    corrected: float


def estimate_target_norm(
    spectrum: Spectrum, residual: Num[Array, "..."], *, ridge: SupportsFloat, sigma: SupportsFloat
) -> TargetNorm:
    """C_H² ≈ rᵀ(𝕂 + ridge)⁻¹ r with the unnormalised 𝕂 = nK, and the same corrected for noise.

    A ridge above zero keeps the noise's share in bounds and bends the target's share down (never above C²). The least
    that makes sense is n times the spectrum's floor; n/η_t is the one that answers to t steps of training.

    Cost: r² k. Raises `InputError` for a negative ridge or sigma, or a singular kernel with no ridge.
    Source: Sun & Raskutti 2026, their plug-in for C_H; the correction is the expectation for independent noise.
    """
    penalty = checked_scale("estimate_target_norm", "ridge", ridge)
    noise = checked_scale("estimate_target_norm", "sigma", sigma)
    weights = coordinates(spectrum, residual)
    shifted = spectrum.n * nonnegative("estimate_target_norm", spectrum.eigenvalues) + penalty
    if shifted.min() <= 0:
        raise InputError(
            "estimate_target_norm: the kernel is singular and the ridge zero, so the norm may be infinite; "
            f"pass a ridge above zero, such as n·floor = {spectrum.n * spectrum.floor:.3g}"
        )
    # Per output: a full kernel has its nk coordinates in one column, so k = coordinates / n.
    k = weights.size / spectrum.n
    squared = np.sum(weights**2 / shifted[:, None]) / k
    share = noise**2 * weights.shape[1] * np.sum(1 / shifted) / k
    return TargetNorm(float(np.sqrt(squared)), float(np.sqrt(max(squared - share, 0.0))))
