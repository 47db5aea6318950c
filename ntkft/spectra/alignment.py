"""Target alignment: how much of the residual lies in the directions that training learns first.

Gradient descent shrinks the part of r = y − f_PT(X) along eigenvector u_j by (1 − ελ̂_j) a step. Energy on the leading
eigenvectors is learnt soon and cheaply; energy on the trailing ones is learnt together with the noise.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import InputError
from ntkft._types import Array
from ntkft.spectra.eigen import Spectrum, coordinates


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where the residual's energy lies.

    energy:        `[r]`, ⟨u_j, r⟩²/‖r‖² summed over outputs; sums to one
    cumulative:    `[r]`, energy on the first j eigenvectors
    kernel_target: ⟨K, r rᵀ⟩/(‖K‖_F ‖r‖²), between 0 and 1
    """

    energy: Float[np.ndarray, " r"]
    cumulative: Float[np.ndarray, " r"]
    kernel_target: float


def target_alignment(spectrum: Spectrum, residual: Num[Array, "..."]) -> Alignment:
    """Alignment of a residual `[n]` or `[n, k]` with the kernel's eigenvectors. Cost: r²·k.

    Raises `InputError` for a residual of another shape, not finite, or zero.
    Source: Cristianini, Shawe-Taylor, Elisseeff & Kandola 2001, definition 1 (kernel-target alignment, not centred).
    """
    energy = np.sum(coordinates(spectrum, residual) ** 2, axis=1)
    if not energy.sum() > 0:
        raise InputError("target_alignment: the residual is zero; the pretrained outputs already equal the targets")
    share = energy / energy.sum()
    norm = np.linalg.norm(spectrum.eigenvalues)
    if not norm > 0:
        raise InputError("target_alignment: the kernel is zero; check that some parameter is trainable")
    return Alignment(share, np.cumsum(share), float(spectrum.eigenvalues @ share / norm))
