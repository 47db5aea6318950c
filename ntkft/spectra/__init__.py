"""Spectra of empirical kernels: eigenpairs, complexity, target alignment, decay. All in float64 on the host."""

from ntkft.spectra.alignment import Alignment, target_alignment
from ntkft.spectra.complexity import (
    critical_radius,
    effective_dimension,
    entropy_rank,
    local_rademacher,
    participation_ratio,
)
from ntkft.spectra.decay import (
    DecayFit,
    DecayInterval,
    DecaySample,
    Line,
    decay_interval,
    decay_over_n,
    fit_decay,
)
from ntkft.spectra.effective_ridge import RidgeRisk, effective_ridge, ridge_risk, second_effective_dimension
from ntkft.spectra.eigen import EmpiricalKernel, Spectrum, coordinates, spectrum, spectrum_of_matrix
from ntkft.spectra.lanczos import (
    Estimate,
    SpectralDensity,
    SymmetricOperator,
    TopEigenpairs,
    spectral_density,
    top_eigenpairs,
)

__all__ = [
    "Alignment",
    "DecayFit",
    "DecayInterval",
    "DecaySample",
    "EmpiricalKernel",
    "Estimate",
    "Line",
    "RidgeRisk",
    "SpectralDensity",
    "Spectrum",
    "SymmetricOperator",
    "TopEigenpairs",
    "coordinates",
    "critical_radius",
    "decay_interval",
    "decay_over_n",
    "effective_dimension",
    "effective_ridge",
    "entropy_rank",
    "fit_decay",
    "local_rademacher",
    "participation_ratio",
    "ridge_risk",
    "second_effective_dimension",
    "spectral_density",
    "spectrum",
    "spectrum_of_matrix",
    "target_alignment",
    "top_eigenpairs",
]
