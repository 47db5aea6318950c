"""Task vectors in kernel space: lengths, angles and interference, without fine-tuning and without weights.

Training moves the linearised model by τ_i = J_iᵀα_i, with the dual coefficients α_i of task i
(`ntkft.dynamics.dual_coefficients`, or `kernel_descent` for another loss). Hence

    ⟨τ_i, τ_j⟩ = α_iᵀ 𝕂(X_i, X_j) α_j,

and a kernel over the training examples of all tasks holds the geometry of their vectors. Tasks whose heads are not the
same parameters share a backbone only: let one model read the task off the example, so that the kernel knows.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import InputError, refuse
from ntkft._types import Array
from ntkft.spectra.eigen import spectrum_of_matrix


@dataclass(frozen=True, eq=False)
class Geometry:
    """Tasks by name, and matrices `[tasks, tasks]` in that order.

    inner:        ⟨τ_i, τ_j⟩
    cosine:       ⟨τ_i, τ_j⟩ / (‖τ_i‖ ‖τ_j‖)
    interference: ‖𝕂_ij‖_F / √(‖𝕂_ii‖_F ‖𝕂_jj‖_F), zero where training one task cannot move another's outputs
    """

    tasks: tuple[str, ...]
    inner: Float[np.ndarray, "tasks tasks"]
    interference: Float[np.ndarray, "tasks tasks"]

    @property
    def norm(self) -> Float[np.ndarray, " tasks"]:
        """‖τ_i‖."""
        return np.sqrt(np.diag(self.inner))

    @property
    def cosine(self) -> Float[np.ndarray, "tasks tasks"]:
        """Cosines of the vectors; NaN for a vector of length zero."""
        with np.errstate(invalid="ignore"):
            return self.inner / np.outer(self.norm, self.norm)


def geometry(
    kernels: Mapping[tuple[str, str], Num[Array, "..."]], duals: Mapping[str, Float[np.ndarray, "n k"]]
) -> Geometry:
    """Lengths and angles of the tasks' vectors.

    kernels: 𝕂(X_i, X_j) for every pair of tasks in one order, (i, i) included, unnormalised `[n, n′]` (acts on every
    output alike, so both tasks have as many) or `[n, k, n′, k′]`; duals: α_i `[n, k]`.

    Cost: 2·n·n′·k·k′ FLOPs a pair. Raises `InputError` naming every pair that is missing or has another shape.
    Source: Sun & Raskutti 2026, task vectors; Ortiz-Jimenez, Favero & Frossard 2023, *Task arithmetic in the tangent
    space*, for the role of the cross kernel.
    """
    tasks = tuple(duals)
    blocks = _blocks(kernels, duals)
    inner, cross = np.empty((len(tasks),) * 2), np.empty((len(tasks),) * 2)
    for (i, a), (j, b) in itertools.combinations_with_replacement(enumerate(tasks), 2):
        block = blocks[a, b]
        inner[i, j] = inner[j, i] = np.sum(duals[a] * drive(block, duals[b], duals[a].shape[1]))
        own = np.sqrt(np.linalg.norm(blocks[a, a].ravel()) * np.linalg.norm(blocks[b, b].ravel()))
        cross[i, j] = cross[j, i] = np.linalg.norm(block.ravel()) / own if own else np.nan
    return Geometry(tasks, inner, cross)


def drive(kernel: Num[Array, "..."], dual: Float[np.ndarray, "n c"], k: int) -> Float[np.ndarray, "m k"]:
    """𝕂(x, X) α: what a vector adds to the k outputs of m examples."""
    matrix = np.asarray(kernel, np.float64)
    if matrix.ndim == 2:
        return matrix @ dual
    return (matrix.reshape(-1, dual.size) @ dual.ravel()).reshape(-1, k)


def interference(cross: Num[Array, "..."], first: Num[Array, "..."], second: Num[Array, "..."]) -> float:
    """‖𝕂₁₂‖_F / √(‖𝕂₁₁‖_F ‖𝕂₂₂‖_F): 1 for a task and itself, 0 for tasks that cannot touch each other."""
    norms = [float(np.linalg.norm(np.asarray(kernel, np.float64).ravel())) for kernel in (cross, first, second)]
    return norms[0] / np.sqrt(norms[1] * norms[2])


def principal_angles(
    cross: Num[Array, "..."], first: Num[Array, "..."], second: Num[Array, "..."], *, precision: str
) -> Float[np.ndarray, " r"]:
    """Angles between the spans of two tasks' gradients, in radians, ascending; r is the smaller rank.

    Their cosines are the singular values of Λ₁^{-½}U₁ᵀ 𝕂₁₂ U₂Λ₂^{-½}, over the eigenpairs of 𝕂₁₁ and 𝕂₂₂ above their
    floors in `precision`. An angle of zero is a direction that both tasks move along; all angles π/2 is 𝕂₁₂ = 0.

    Cost: two eigendecompositions and one singular value decomposition. Raises `InputError` as `spectrum_of_matrix`
    does, and for a cross kernel of another shape.
    """
    sides = []
    for kernel in (first, second):
        spectrum = spectrum_of_matrix(kernel, precision=precision).check()
        count = spectrum.count_above_floor
        scale = np.sqrt(spectrum.n * spectrum.eigenvalues[:count])
        sides.append(spectrum.eigenvectors[:, :count] / scale[None])
    rows, columns = (len(side) for side in sides)
    matrix = np.asarray(cross, np.float64)
    if matrix.size != rows * columns or matrix.ndim != np.ndim(first):
        raise InputError(
            f"principal_angles: cross kernel has shape {list(matrix.shape)} for kernels {list(np.shape(first))} and "
            f"{list(np.shape(second))}; wanted the examples of the first by those of the second"
        )
    cosines = np.linalg.svd(sides[0].T @ matrix.reshape(rows, columns) @ sides[1], compute_uv=False)
    return np.arccos(np.clip(cosines, 0.0, 1.0))


def _blocks(kernels, duals) -> dict[tuple[str, str], np.ndarray]:
    """The kernel of every pair of tasks in the order of `duals`, turned round where only the other order is there."""
    found, problems = {}, []
    for a, b in itertools.combinations_with_replacement(duals, 2):
        (n, k), (m, c) = duals[a].shape, duals[b].shape
        if (a, b) in kernels:
            block = np.asarray(kernels[a, b], np.float64)
        elif (b, a) in kernels:
            block = np.asarray(kernels[b, a], np.float64)
            block = np.moveaxis(block, (0, 1), (2, 3)) if block.ndim == 4 else block.T
        else:
            problems.append(f"no kernel of {a!r} and {b!r}; wanted one for each pair of {', '.join(map(repr, duals))}")
            continue
        if block.shape != (n, k, m, c) and (block.shape != (n, m) or k != c):
            problems.append(
                f"the kernel of {a!r} and {b!r} has shape {list(block.shape)}; wanted [{n}, {k}, {m}, {c}]"
                + (f" or [{n}, {m}]" if k == c else "")
            )
        found[a, b] = block
    refuse("geometry", problems)
    return found
