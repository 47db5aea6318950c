"""Directions in which a step is too long: what training makes of them at the edge of stability.

Along an eigenvector of the kernel with ελ̂ ≥ 2 descent on the linearised model diverges. A network does not: its
sharpness stays near 2/ε, and it oscillates about what the direction has to give (Cohen et al. 2021). On average it has
learnt it. So such a direction takes the step 1/λ̂ in place of ε: it is learnt at once, and then stays.
"""

import numpy as np
import scipy.linalg
from jaxtyping import Float, Num

from ntkft._types import Array
from ntkft.dynamics.descent import CURVATURE, LossName
from ntkft.dynamics.prediction import per_output
from ntkft.spectra.eigen import EmpiricalKernel


def settle(
    kernel: EmpiricalKernel | Num[Array, "..."], outputs: int, *, loss: LossName, step_size: float
) -> tuple[EmpiricalKernel | Num[Array, "..."], Float[np.ndarray, "r r"] | None, int]:
    """A kernel on which descent is stable, the matrix that its dual coefficients are multiplied with, and how many
    directions were settled.

    With 𝕂 = UΛUᵀ and P = diag(1/(εcλ̂)) where εcλ̂ ≥ 2, else 1 (c the loss's largest curvature, λ̂ = λ/n): descent on
    UΛPUᵀ gives γ, and α = UPUᵀγ moves the outputs by 𝕂α. None and 0 where every direction is stable; the kernel is
    then the one given.

    Cost: an eigendecomposition, 9r³ FLOPs, r = n or nk.
    """
    array = np.asarray(per_output(kernel, outputs), np.float64)
    n = array.shape[0]
    matrix = array if array.ndim == 2 else array.reshape(n * outputs, -1)
    values, vectors = scipy.linalg.eigh(matrix)
    pace = step_size * CURVATURE[loss] * values / n
    unstable = pace >= 2
    if not unstable.any():
        return kernel, None, 0
    shrink = np.where(unstable, 1 / np.where(unstable, pace, 1), 1)
    stable = (vectors * (values * shrink)) @ vectors.T
    return stable.reshape(array.shape), (vectors * shrink) @ vectors.T, int(unstable.sum())
