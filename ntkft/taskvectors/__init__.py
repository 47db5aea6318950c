"""Task vectors τ = θ_FT − θ_PT: how the updates of several tasks combine, from kernels alone and from real weights.

Read in this order: `geometry` (norms, cosines and interference in kernel space), `vectors` (the same in weights, and
files), `combination` (the model at θ_PT + Σ c_i τ_i, predicted or real), `outcomes` (what addition and negation do).
"""

from ntkft.taskvectors.combination import Combination, kernel_combination, weight_combination
from ntkft.taskvectors.geometry import Geometry, geometry, interference, principal_angles
from ntkft.taskvectors.outcomes import (
    Addition,
    Negation,
    addition,
    choose_coefficients,
    disentanglement_error,
    negation,
)
from ntkft.taskvectors.vectors import (
    add_task_vectors,
    cosine,
    load_task_vector,
    save_task_vector,
    task_vector,
)

__all__ = [
    "Addition",
    "Combination",
    "Geometry",
    "Negation",
    "add_task_vectors",
    "addition",
    "choose_coefficients",
    "cosine",
    "disentanglement_error",
    "geometry",
    "interference",
    "kernel_combination",
    "load_task_vector",
    "negation",
    "principal_angles",
    "save_task_vector",
    "task_vector",
    "weight_combination",
]
