"""Outputs of the linearised model after t steps, on the training set and anywhere else.

Training moves the parameters to θ_PT + Jᵀα_t with *dual coefficients* α_t = (1/n) U m_t(λ̂) Uᵀ r, hence

    f_t(x) = f_PT(x) + 𝕂(x, X) α_t,

for any filter m_t. α_t is also all that kernel space needs to know of a task vector. Predictions are trustworthy up to
about t = 1/(ε·floor): later steps learn eigendirections that are only rounding noise.

A kernel `[n, n]` of a model with k outputs acts on every output alike, as 𝕂 ⊗ I_k. A *trace* kernel Σ_a 𝕂_aa is k times
too large for that: the mean kernel (1/k)·trace is what drives each output. It replaces the true nk × nk kernel by its
best multiple of the identity over outputs, which is exact for a model whose outputs share nothing but their features (a
fresh linear head in front of a frozen backbone), and an approximation otherwise.
"""

import numpy as np
from jaxtyping import Float, Int, Num

from ntkft._errors import InputError
from ntkft._types import Array
from ntkft.dynamics.filters import SpectralFilter, Steps
from ntkft.spectra.eigen import EmpiricalKernel, Spectrum, coordinates


def dual_coefficients(
    spectrum: Spectrum, residual: Num[Array, "..."], spectral_filter: SpectralFilter, steps: Steps
) -> Float[np.ndarray, "s n k"]:
    """α_t = (1/n) U m_t(λ̂) Uᵀ r at every step, `[s, n, k]`, from r = y − f_PT(X), `[n]` or `[n, k]`.

    Cost: one product, 2 r²·s·c FLOPs (c = 1 for a full kernel, else k). Raises `InputError` for a residual of another
    shape, and as the filter does.
    """
    weights = coordinates(spectrum, residual)
    multipliers = spectral_filter(spectrum.eigenvalues, steps)
    filtered = multipliers.T[:, :, None] * weights[:, None, :]  # [r, s, c]
    order, count = len(weights), len(multipliers)
    dual = spectrum.eigenvectors @ filtered.reshape(order, -1) / spectrum.n
    return np.ascontiguousarray(np.moveaxis(dual.reshape(order, count, -1), 1, 0)).reshape(count, spectrum.n, -1)


def outputs_at(
    kernel: Num[Array, "..."], dual: Float[np.ndarray, "s n k"], pretrained: Num[Array, "..."]
) -> Float[np.ndarray, "s m k"]:
    """f_t(x) = f_PT(x) + 𝕂(x, X) α_t at m examples, `[s, m, k]`.

    kernel: unnormalised 𝕂(x, X), `[m, n]` or `[m, k, n, k]` (the training kernel itself for the training set);
    dual: from `dual_coefficients`; pretrained: f_PT(x), `[m]` or `[m, k]`.

    Cost: one product, 2·m·n·s·k FLOPs (times k for a full kernel). Raises `InputError` for shapes that do not fit.
    """
    count, n, k = dual.shape
    m = kernel.shape[0]
    start = np.asarray(pretrained, np.float64)
    if tuple(kernel.shape) not in ((m, n), (m, k, n, k)) or start.shape not in ((m,), (m, k)) or start.size != m * k:
        raise InputError(
            f"outputs_at: got a kernel {list(kernel.shape)} and pretrained outputs {list(start.shape)} for dual "
            f"coefficients of {n} examples with {k} outputs; wanted [m, {n}] or [m, {k}, {n}, {k}], and [m, {k}]"
        )
    order, alike = (n, k) if kernel.ndim == 2 else (n * k, 1)
    matrix = np.asarray(kernel, np.float64).reshape(-1, order)
    moved = matrix @ np.moveaxis(dual.reshape(count, order, alike), 0, 1).reshape(order, count * alike)
    moved = np.moveaxis(moved.reshape(len(matrix), count, alike), 1, 0)
    return start.reshape(m, k)[None] + moved.reshape(count, m, k)


def per_output(kernel: EmpiricalKernel | Num[Array, "..."], k: int) -> Num[Array, "..."]:
    """The array that drives k outputs: a trace kernel divided by k, any other kernel or plain array as it is."""
    if isinstance(kernel, Array):
        return kernel
    return kernel.total / k if kernel.outputs == "trace" else kernel.total


def precision_of(kernel: EmpiricalKernel | Num[Array, "..."]) -> str:
    """Floating type to judge symmetry by; a plain array does not tell, so float32 is assumed."""
    return "float32" if isinstance(kernel, Array) else kernel.precision


def restrict(
    kernel: Num[Array, "..."], rows: Int[np.ndarray, " i"] | slice, columns: Int[np.ndarray, " j"]
) -> Num[np.ndarray, "..."]:
    """The kernel between the examples `rows` of the first set and `columns` of the second."""
    return np.take(np.asarray(kernel)[rows], columns, axis=kernel.ndim // 2)
