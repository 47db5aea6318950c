"""Kernel regression and classification solved outright, and the penalty chosen on validation examples.

All fit the residual of a pretrained model, so that a large penalty gives back f_PT. Penalties are *shares* s ≥ 0 of the
kernel's operator norm, λ = s ‖𝕂‖_op, a list without units that serves every task; `SHARES` is that of Malladi et al.
Each solver returns dual coefficients for every share, `outputs_at` turns them into outputs, `best_share` picks one.

Where training would end: `ridge_regression` is gradient descent on the squared loss with weight decay, run for ever,
`logistic_regression` is `kernel_descent`, run until it stands still. `asymmetric_machine` is for kernels of two feature
maps, 𝕂(x, x′) = ⟨φ(x), ψ(x′)⟩, such as ⟨∇f(x), sign ∇f(x′)⟩.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg
from jaxtyping import Float, Num

from ntkft._errors import InputError, refuse
from ntkft._types import Array
from ntkft.dynamics.classification import accuracy
from ntkft.dynamics.descent import kernel_descent
from ntkft.dynamics.filters import Steps
from ntkft.dynamics.prediction import dual_coefficients, outputs_at, per_output, precision_of
from ntkft.spectra.complexity import checked_scale
from ntkft.spectra.eigen import EmpiricalKernel, as_columns, spectrum_of_matrix

SHARES = (0.0, 0.001, 0.01, 0.1, 1.0)
"""The penalties of Malladi et al. 2023, in units of ‖𝕂‖_op."""
STANDSTILL = 1e-10
"""Logistic regression is iterated until it is this near its solution, in units of the way there."""
SINGULAR = 1e12
"""Condition number from which a linear system has no solution to speak of."""


def ridge_regression(
    kernel: EmpiricalKernel | Num[Array, "..."], residual: Num[Array, "..."], *, shares: Sequence[float | int]
) -> Float[np.ndarray, "s n k"]:
    """α = (𝕂 + s ‖𝕂‖_op I)⁻¹ r for every share s, `[s, n, k]`; for s = 0 the least-squares solution of least norm.

    kernel:   of the n training examples with themselves, a record or `[n, n]` or `[n, k, n, k]`, unnormalised; a trace
              record is divided by k (see `ntkft.dynamics.prediction`)
    residual: r = y − f_PT(X), `[n]` or `[n, k]`

    In terms of `ridge` the share is a time, 1/(εt) = s λ̂₁. For s = 0 eigenvalues below the numerical floor count as
    zero. Cost: one eigendecomposition. Raises `InputError` for shares that are negative or none, and as
    `spectrum_of_matrix` and `dual_coefficients` do.
    """
    wanted = _checked_shares("ridge_regression", shares)
    spectrum = spectrum_of_matrix(per_output(kernel, _columns(residual)), precision=precision_of(kernel))

    def multipliers(eigenvalues: Num[Array, " r"], steps: Steps) -> Float[np.ndarray, "s r"]:
        values = np.maximum(eigenvalues, 0)[None]
        penalties = np.asarray(steps)[:, None] * values.max()
        solved = (values > spectrum.floor) | (penalties > 0)
        return np.where(solved, 1 / np.where(solved, values + penalties, 1.0), 0.0)

    return dual_coefficients(spectrum, residual, multipliers, wanted)


def logistic_regression(
    kernel: EmpiricalKernel | Num[Array, "..."],
    targets: Num[Array, "..."],
    pretrained: Num[Array, "..."],
    *,
    loss: Literal["logistic", "cross_entropy"],
    shares: Sequence[float | int],
) -> Float[np.ndarray, "s n k"]:
    """Minimise Σ_i ℓ(f(x_i), y_i) + (s ‖𝕂‖_op / 2) ‖f − f_PT‖²_H for every share s > 0, `[s, n, k]`.

    Arguments as in `kernel_descent`, which does it: steps of 1/(½λ̂₁ + sλ̂₁) multiply the distance to the solution by at
    most 1 − 2s/(1 + 2s), so that the number of steps is known beforehand.

    Cost: about 12/s steps for each share. Raises `InputError` as `kernel_descent` does, and for a share of zero:
    examples that can be separated have no finite solution without a penalty.
    """
    wanted = _checked_shares("logistic_regression", shares)
    if min(wanted) == 0:
        raise InputError(
            "logistic_regression: share 0; separable examples have no finite solution without a penalty, take a small "
            "share such as 0.001"
        )
    matrix = np.asarray(per_output(kernel, _columns(pretrained)), np.float64)
    order = math.isqrt(matrix.size)
    norm = float(scipy.linalg.eigvalsh(matrix.reshape(order, -1), subset_by_index=[order - 1] * 2)[0])
    largest = norm / len(matrix)
    return np.concatenate(
        [
            kernel_descent(
                matrix,
                targets,
                pretrained,
                loss=loss,
                step_size=1 / (largest * (0.5 + share)),
                momentum=0.0,
                penalty=share * largest,
                steps=[math.ceil(-math.log(STANDSTILL) * (1 + 0.5 / share))],
            )
            for share in wanted
        ]
    )


@dataclass(frozen=True, eq=False)
class AsymmetricMachine:
    """The two functions of an asymmetric least-squares support vector machine, for every share.

    columns: `[s, n, k]` coefficients c of the first, f₁(x) = f_PT(x) + Σ_j 𝕂(x, x_j) c_j + b₁
    rows:    `[s, n, k]` coefficients a of the second, f₂(x) = f_PT(x) + Σ_j 𝕂(x_j, x) a_j + b₂
    biases:  `[s, 2, k]`; zeros for a machine without
    """

    columns: Float[np.ndarray, "s n k"]
    rows: Float[np.ndarray, "s n k"]
    biases: Float[np.ndarray, "s 2 k"]

    def outputs(
        self, kernel: Num[Array, "..."], reverse: Num[Array, "..."], pretrained: Num[Array, "..."]
    ) -> tuple[Float[np.ndarray, "s m k"], Float[np.ndarray, "s m k"]]:
        """(f₁, f₂) at m examples, from 𝕂(x, X) and 𝕂(X, x). Their mean is the usual decision.

        Raises `InputError` as `outputs_at` does.
        """
        first = outputs_at(kernel, self.columns, pretrained) + self.biases[:, :1]
        return first, outputs_at(np.asarray(reverse).T, self.rows, pretrained) + self.biases[:, 1:]


def asymmetric_machine(
    kernel: EmpiricalKernel | Num[Array, "..."],
    residual: Num[Array, "..."],
    *,
    shares: Sequence[float | int],
    bias: bool,
) -> AsymmetricMachine:
    """Least-squares support vector machine with an asymmetric kernel 𝕂(x, x′) = ⟨φ(x), ψ(x′)⟩, for every share.

    kernel:   of the n training examples with themselves, `[n, n]`, not necessarily symmetric
    residual: r = y − f_PT(X), `[n]` or `[n, k]`; targets ±1 for a classifier
    bias:     whether each function has a constant (He et al. do, Malladi et al. do not)

    One weight vector for each feature map and one error for each constraint, with λ = s ‖𝕂‖_op = 1/γ:

        stationary point of  ω·ν + (1/2λ) Σ_i (e_i² + h_i²)
        with                 ω·φ(x_i) + b₁ = r_i − e_i,   ν·ψ(x_i) + b₂ = r_i − h_i.

    With multipliers a for the first constraints and c for the second, the derivatives in ω, ν, e, h, b₁ and b₂ vanish
    at ν = Σ a_i φ(x_i), ω = Σ c_i ψ(x_i), e = λa, h = λc, Σ a_i = Σ c_i = 0. Inserted in the constraints:

        λa + 𝕂c + b₁ = r,        𝕂ᵀa + λc + b₂ = r,        1ᵀa = 0,        1ᵀc = 0.

    (For y = ±1 these are the equations of He et al. with a_i = α_i y_i.) A symmetric kernel gives a = c, the ordinary
    machine (𝕂 + λ)a + b = r. ω·ν is indefinite: without biases the matrix has the eigenvalues λ ± σ_j(𝕂), so a penalty
    that hits a singular value of 𝕂, as the share 1 does, has no solution, and one close to it is badly determined.

    Cost: a singular value decomposition of order 2n for each share. Raises `InputError` for a kernel that is not
    `[n, n]`, shares that are negative or none, and a system that is singular.
    Source: He, He, Shi, Huang & Suykens 2023, *Learning with asymmetric kernels: least squares and feature
    interpretation*; Suykens & Vandewalle 1999 for symmetric kernels.
    """
    wanted = _checked_shares("asymmetric_machine", shares)
    matrix = np.asarray(kernel if isinstance(kernel, Array) else kernel.total, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"asymmetric_machine: kernel has shape {list(matrix.shape)}; wanted [n, n], one output")
    n = len(matrix)
    target = as_columns("residual", residual, n)
    norm = float(np.linalg.norm(matrix, 2))
    # Constants in units of the kernel, so that the condition number is about the kernel alone.
    ones = norm / math.sqrt(n) * np.kron(np.eye(2), np.ones((n, 1))) if bias else np.zeros((2 * n, 0))
    right = np.concatenate([target, target, np.zeros((ones.shape[1], target.shape[1]))])
    solutions, biases = [], []
    for share in wanted:
        system = share * norm * np.eye(2 * n)
        system[:n, n:], system[n:, :n] = matrix, matrix.T
        system = np.block([[system, ones], [ones.T, np.zeros((ones.shape[1],) * 2)]])
        if np.linalg.cond(system) > SINGULAR:
            raise InputError(
                f"asymmetric_machine: at share {share:g} the system is singular: the penalty hits a singular value of "
                "the kernel (share 1 hits the largest, share 0 a kernel without full rank); take another share"
            )
        solution = np.linalg.solve(system, right)
        solutions.append(solution[: 2 * n].reshape(2, n, -1))
        biases.append(solution[2 * n :] * norm / math.sqrt(n) if bias else np.zeros((2, target.shape[1])))
    rows, columns = np.moveaxis(np.stack(solutions), 1, 0)
    return AsymmetricMachine(columns, rows, np.stack(biases))


def best_share(outputs: Float[np.ndarray, "s m k"], targets: Num[Array, "..."]) -> int:
    """Index of the share whose outputs have the highest accuracy on validation examples, the first of equals.

    Raises `InputError` when the targets are no classes (see `ntkft.dynamics.classification`).
    """
    right = accuracy(outputs, targets)
    if right is None:
        raise InputError("best_share: targets are no classes; wanted integers [m], signs ±1 or one-hot rows")
    return int(np.argmax(right))


def _columns(values: Num[Array, "..."]) -> int:
    return np.asarray(values).reshape(len(values), -1).shape[1]


def _checked_shares(what: str, shares: Sequence[float | int]) -> list[float]:
    refuse(what, [] if len(shares) else ["got no shares; wanted a list of penalties in units of ‖𝕂‖_op"])
    return [checked_scale(what, "share", share) for share in shares]
