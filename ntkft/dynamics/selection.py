"""Risk over epochs, estimated or exact, and the epoch that minimises it.

Every curve is the *in-sample* risk (1/n) Σ_i ‖f_t(x_i) − f*(x_i)‖², summed over outputs, or an estimate of it up to a
constant: exact bias and variance when the target is known (the oracle), Stein's unbiased estimate when only the noise
is, generalised cross-validation when neither is, and hold-out, which trains on a part of the examples and measures on
the rest. All read one eigendecomposition. In the eigenbasis the residual is left with s̃_j = 1 − λ̂_j m_t(λ̂_j), for
any filter.
"""

from dataclasses import dataclass
from operator import index
from typing import SupportsFloat, SupportsIndex

import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import refuse
from ntkft._types import Array
from ntkft.dynamics.filters import SpectralFilter, Steps, remaining
from ntkft.dynamics.prediction import dual_coefficients, outputs_at, per_output, precision_of, restrict
from ntkft.spectra.complexity import checked_scale
from ntkft.spectra.eigen import EmpiricalKernel, Spectrum, as_columns, coordinates, spectrum_of_matrix


@dataclass(frozen=True, eq=False)
class RiskCurve:
    """A risk at every step, and the step where it is lowest (the first of equals)."""

    steps: Num[np.ndarray, " s"]
    values: Float[np.ndarray, " s"]

    @property
    def best(self) -> int | float:
        """Step of the lowest risk."""
        return self.steps[np.argmin(self.values)].item()


@dataclass(frozen=True, eq=False)
class BiasVariance:
    """Exact expected in-sample risk for a known target, in its two parts, `[s]`; `risk.best` is the oracle's step."""

    steps: Num[np.ndarray, " s"]
    bias2: Float[np.ndarray, " s"]
    variance: Float[np.ndarray, " s"]

    @property
    def risk(self) -> RiskCurve:
        """Squared bias plus variance."""
        return RiskCurve(self.steps, self.bias2 + self.variance)


def bias_variance(
    spectrum: Spectrum,
    difference: Num[Array, "..."],
    sigma: SupportsFloat,
    spectral_filter: SpectralFilter,
    steps: Steps,
) -> BiasVariance:
    """bias² = (1/n) Σ_j s̃_j² ⟨u_j, f* − f_PT⟩², variance = (σ²/n) Σ_j (1 − s̃_j)², summed over outputs.

    difference: f* − f_PT on the training examples, `[n]` or `[n, k]`; sigma: standard deviation of independent noise.
    Cost: r² k + r s. Raises `InputError` for a difference of another shape, and as the filter does.
    Source: Raskutti, Wainwright & Yu 2014, the decomposition in the proof of Theorem 1.
    """
    weights, left = coordinates(spectrum, difference), remaining(spectral_filter, spectrum.eigenvalues, steps)
    noise = checked_scale("bias_variance", "sigma", sigma)
    bias2 = left**2 @ np.sum(weights**2, axis=1) / spectrum.n
    variance = noise**2 * weights.shape[1] * np.sum((1 - left) ** 2, axis=1) / spectrum.n
    return BiasVariance(np.asarray(steps), bias2, variance)


def sure(
    spectrum: Spectrum,
    residual: Num[Array, "..."],
    sigma: SupportsFloat,
    spectral_filter: SpectralFilter,
    steps: Steps,
) -> RiskCurve:
    """Stein's unbiased estimate of the in-sample risk: (1/n)[nkσ² + Σ_j s̃_j² ⟨u_j, r⟩² − 2kσ² Σ_j s̃_j].

    residual: r = y − f_PT(X), `[n]` or `[n, k]`. Its expectation over Gaussian noise is the exact risk at every step;
    it may be negative. Cost: r² k + r s. Raises `InputError` as `bias_variance` does.
    Source: Stein 1981; Raskutti, Wainwright & Yu 2014, the comparison in their simulations.
    """
    weights, left = coordinates(spectrum, residual), remaining(spectral_filter, spectrum.eigenvalues, steps)
    noise2 = checked_scale("sure", "sigma", sigma) ** 2
    fit = left**2 @ np.sum(weights**2, axis=1)
    freedom = noise2 * weights.shape[1] * (left.shape[1] - 2 * left.sum(axis=1))
    return RiskCurve(np.asarray(steps), (fit + freedom) / spectrum.n)


def gcv(spectrum: Spectrum, residual: Num[Array, "..."], spectral_filter: SpectralFilter, steps: Steps) -> RiskCurve:
    """Generalised cross-validation: (1/n) Σ_j s̃_j² ⟨u_j, r⟩² / (mean_j s̃_j)², an estimate of risk plus noise.

    Infinite where no degrees of freedom are left (mean s̃ < 10⁻⁸). Cost and errors: as `sure`.
    Source: Craven & Wahba 1979.
    """
    weights, left = coordinates(spectrum, residual), remaining(spectral_filter, spectrum.eigenvalues, steps)
    fit, freedom = left**2 @ np.sum(weights**2, axis=1) / spectrum.n, left.mean(axis=1)
    free = freedom > 1e-8
    return RiskCurve(np.asarray(steps), np.where(free, fit / np.where(free, freedom, 1.0) ** 2, np.inf))


def holdout_curve(
    kernel: EmpiricalKernel | Num[Array, "..."],
    targets: Num[Array, "..."],
    pretrained: Num[Array, "..."],
    *,
    fraction: SupportsFloat,
    seed: SupportsIndex,
    spectral_filter: SpectralFilter,
    steps: Steps,
) -> RiskCurve:
    """Squared error on a random `fraction` of the examples when training on the others, `holdout_stopping`'s input.

    kernel: of all n examples with themselves, a record or `[n, n]` or `[n, k, n, k]`; targets, pretrained: `[n]` or
    `[n, k]`. Summed over outputs; noise included. Cost: one eigendecomposition of the training part and r² s k.
    Raises `InputError` when no example is left to train on or to measure with, and as `spectrum_of_matrix` does.
    """
    n = (kernel if isinstance(kernel, Array) else kernel.total).shape[0]
    y, start = as_columns("targets", targets, n), as_columns("pretrained", pretrained, n)
    held = round(float(fraction) * n) if 0 < float(fraction) < 1 else 0
    problems = [f"targets have shape {list(y.shape)}, pretrained outputs {list(start.shape)}; wanted the same"]
    problems = problems if y.shape != start.shape else []
    if not 1 <= held < n:
        problems.append(f"fraction {float(fraction):g} of {n} examples holds out {held}; wanted between 1 and {n - 1}")
    refuse("holdout_curve", problems)
    order = np.random.default_rng(index(seed)).permutation(n)
    out, kept = np.sort(order[:held]), np.sort(order[held:])
    array = per_output(kernel, y.shape[1])
    spectrum = spectrum_of_matrix(restrict(array, kept, kept), precision=precision_of(kernel))
    dual = dual_coefficients(spectrum, y[kept] - start[kept], spectral_filter, steps)
    errors = outputs_at(restrict(array, out, kept), dual, start[out]) - y[out][None]
    return RiskCurve(np.asarray(steps), np.sum(errors**2, axis=(1, 2)) / held)
