"""Eigenpairs of the normalised empirical kernel K = 𝕂/n, in float64 on the host.

Everything that the theory says about training, stopping and risk is a function of these eigenpairs and of the residual
r = y − f_PT(X) written in them. The number n is always the number of *examples*: a full kernel `[n, k, n, k]` is the
`[nk, nk]` matrix in (example, output) order, still divided by n, so that one step of gradient descent on the loss
(1/2n) Σ_i ‖y_i − f(x_i)‖² moves the outputs by ε K r.

A kernel computed in a finite precision has eigenvalues known only down to eps·λ̂₁·√(order of the matrix); below this
*floor* they are rounding noise, and every spectrum carries it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float, Num

from ntkft._errors import InputError
from ntkft._types import Array

MATERIAL = 10.0
"""An eigenvalue below −10 floors is not rounding: the matrix is no Gram matrix."""


@runtime_checkable
class EmpiricalKernel(Protocol):
    """What a spectrum needs of a kernel; `ntkft.empirical_ntk` returns such a record."""

    @property
    def total(self) -> Array:
        """Unnormalised kernel, `[n, m]` or `[n, k, m, k]`."""
        ...

    @property
    def groups(self) -> Mapping[str, Array]:
        """The kernel of each parameter group alone, of the same shape."""
        ...

    @property
    def outputs(self) -> str:
        """Which form the kernel has: "full", "trace" or "scalar"."""
        ...

    @property
    def precision(self) -> str:
        """Floating type in which the kernel was computed."""
        ...


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenpairs of K = 𝕂/n, eigenvalues descending.

    eigenvalues:  `[r]`, all of them (r = n, or nk for a full kernel), rounding noise and zeros included
    eigenvectors: `[r, r]`, column j belongs to eigenvalue j; rows in (example, output) order
    floor:        eps(precision)·λ̂₁·√r, below which eigenvalues are rounding noise
    n:            number of examples
    groups:       eigenvalues of each parameter group's own kernel, also divided by n and descending
    """

    eigenvalues: Float[np.ndarray, " r"]
    eigenvectors: Float[np.ndarray, "r r"]
    floor: float
    n: int
    groups: Mapping[str, Float[np.ndarray, " r"]]

    @property
    def count_above_floor(self) -> int:
        """Number of eigenvalues that are more than rounding noise."""
        return int(np.sum(self.eigenvalues > self.floor))

    @property
    def status(self) -> Literal["ok", "negative"]:
        """Whether the matrix is a Gram matrix up to rounding: "negative" if some eigenvalue is below −10 floors."""
        return "negative" if self.eigenvalues[-1] < -MATERIAL * self.floor else "ok"

    def check(self) -> "Spectrum":
        """Return the spectrum itself, or raise `InputError` when an eigenvalue is materially negative."""
        if self.status == "negative":
            raise InputError(
                f"spectrum: smallest eigenvalue {self.eigenvalues[-1]:.3g} is far below zero (rounding explains "
                f"−{MATERIAL * self.floor:.1g}); a kernel of gradients has none: pass the unmodified kernel of one set "
                "of examples with itself, and name the precision in which it was really computed"
            )
        return self


def spectrum(kernel: EmpiricalKernel) -> Spectrum:
    """Spectrum of a kernel record and of each of its parameter groups.

    A trace kernel is taken as it is, Σ over k outputs: divide eigenvalues (and floor) by k for the mean kernel that
    drives each output.

    Cost: one symmetric eigendecomposition, ≈ 9 r³ FLOPs and 3 r² doubles, plus the eigenvalues alone (≈ 4/3 r³) of
    each group. Raises `InputError` as `spectrum_of_matrix` does, naming the group.
    """
    whole = spectrum_of_matrix(kernel.total, precision=kernel.precision)
    groups = {
        name: scipy.linalg.eigvalsh(
            normalised(group, precision=kernel.precision, what=f"spectrum of group {name!r}"),
            overwrite_a=True,
            check_finite=False,
        )[::-1].copy()
        for name, group in kernel.groups.items()
    }
    return Spectrum(whole.eigenvalues, whole.eigenvectors, whole.floor, whole.n, groups)


def spectrum_of_matrix(kernel: Num[Array, "..."], *, precision: str) -> Spectrum:
    """Spectrum of an unnormalised kernel matrix `[n, n]` or `[n, k, n, k]`, computed in floating type `precision`.

    Cost: as `spectrum`, without groups. Raises `InputError` for a matrix that is not square, not symmetric beyond
    √eps(precision) of its largest entry, empty, or holds NaN or infinity (the examples are named). Materially negative
    eigenvalues are a `status`, not an error: look, or call `.check()`.
    """
    matrix = normalised(kernel, precision=precision, what="spectrum")
    values, vectors = scipy.linalg.eigh(matrix, driver="evd", overwrite_a=True, check_finite=False)
    values, vectors = values[::-1].copy(), np.ascontiguousarray(vectors[:, ::-1])
    floor = machine_epsilon(precision) * max(float(values[0]), 0.0) * float(np.sqrt(len(values)))
    return Spectrum(values, vectors, floor, kernel.shape[0], {})


def coordinates(spectrum: Spectrum, values: Num[Array, "..."]) -> Float[np.ndarray, "r c"]:
    """Uᵀv: values `[n]` or `[n, k]` on the training examples, in the eigenbasis.

    A full kernel has one basis for all nk values, hence one column (c = 1). Any other kernel acts on every output
    alike, so each output has its own column (c = k). Sums over both axes mean the same in either case, which lets every
    formula downstream be written once. Raises `InputError` for values of another shape or with NaN or infinity.
    """
    order, block = len(spectrum.eigenvalues), len(spectrum.eigenvalues) // spectrum.n
    columns = as_columns("values", values, spectrum.n)
    if block > 1 and columns.shape[1] != block:
        raise InputError(
            f"values: got {columns.shape[1]} outputs per example for a full kernel of {block}; "
            f"pass an array of shape [{spectrum.n}, {block}]"
        )
    return spectrum.eigenvectors.T @ columns.reshape(order, -1)


def as_columns(what: str, values: Num[Array, "..."], n: int) -> Float[np.ndarray, "n k"]:
    """Values of n examples as float64 `[n, k]`; `[n]` means one output. Raises `InputError` for anything else."""
    array = np.asarray(values, np.float64)
    if array.ndim not in (1, 2) or array.shape[0] != n:
        raise InputError(f"{what}: got shape {list(array.shape)}, wanted [{n}, k], one row for each of {n} examples")
    if bad := np.flatnonzero(~np.isfinite(array.reshape(n, -1)).all(axis=1)).tolist():
        raise InputError(f"{what}: examples {_listed(bad)} hold NaN or infinity; remove them or mend what made them")
    return array.reshape(n, -1)


def machine_epsilon(precision: str) -> float:
    """Spacing of the floating type's numbers at one; "bfloat16" and "tensorfloat32" included."""
    if precision == "tensorfloat32":
        return 2.0**-10  # a type of products, not of arrays
    try:
        return float(jnp.finfo(precision).eps)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"precision: {precision!r} is no floating type; name the one in which gradients were computed, "
            "such as 'float64', 'float32' or 'bfloat16'"
        ) from error


def normalised(kernel: Num[Array, "..."], *, precision: str, what: str) -> Float[np.ndarray, "r r"]:
    """K = 𝕂/n as a new, exactly symmetric float64 matrix of order n or nk. Raises `InputError` as above."""
    shape = tuple(kernel.shape)
    if len(shape) not in (2, 4) or shape[: len(shape) // 2] != shape[len(shape) // 2 :] or 0 in shape:
        raise InputError(
            f"{what}: got a kernel of shape {list(shape)}; wanted a square [n, n] or [n, k, n, k], the kernel of one "
            "set of examples with itself"
        )
    n, order = shape[0], int(np.prod(shape[: len(shape) // 2]))
    matrix = np.array(kernel, np.float64).reshape(order, order)
    _refuse_not_finite(what, matrix, order // n)
    tolerance = np.sqrt(machine_epsilon(precision)) * np.abs(matrix).max()
    skew = np.abs(matrix - matrix.T)
    if skew.max() > tolerance:
        row, column = np.unravel_index(np.argmax(skew), skew.shape)
        raise InputError(
            f"{what}: kernel is not symmetric: the entries of examples {row // (order // n)} and "
            f"{column // (order // n)} differ by {skew.max():.3g} (rounding in {precision} allows {tolerance:.1g}); "
            "pass the kernel of one set of examples with itself"
        )
    return (matrix + matrix.T) / (2 * n)


def _refuse_not_finite(what: str, matrix: np.ndarray, block: int) -> None:
    """Name the examples whose own entry 𝕂(x, x) is bad, since one bad example spoils a whole row and column."""
    bad = ~np.isfinite(matrix)
    if not bad.any():
        return
    own = np.flatnonzero(bad.diagonal()) // block
    examples = np.unique(own if own.size else np.argwhere(bad)[0] // block).tolist()
    raise InputError(
        f"{what}: kernel holds {int(bad.sum())} NaN or infinite entries, from examples {_listed(examples)}; look at "
        "their gradients, or leave them out"
    )


def _listed(examples: list[int]) -> str:
    return ", ".join(map(str, examples[:8])) + (f", … ({len(examples)} in all)" if len(examples) > 8 else "")
