"""Head tuning: a linear head on frozen representations, by least squares; and when one can read the state at all."""

from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import InputError
from ntkft._types import Array
from ntkft.spectra.complexity import checked_scale


@dataclass(frozen=True, eq=False)
class RecoveringHead:
    """The best head on token probabilities for a function of the hidden state.

    weights:  b `[v]`, of least norm
    residual: ‖Eb − μ‖/‖μ‖; zero exactly when a linear head can recover the function
    """

    weights: Float[np.ndarray, " v"]
    residual: float


def fit_head(x: Num[Array, "n p"], y: Num[Array, "m k"], ridge: SupportsFloat) -> Float[np.ndarray, "p k"]:
    """The B that minimises (1/n)‖Y − XB‖² + λ‖B‖²; with λ = 0 that of least norm among all minimisers.

    x, y: as many rows in both. No intercept. Singular values below max(n, p)·eps of the largest are zero when λ = 0.
    Cost: one singular value decomposition, min(n, p)² max(n, p). Raises `InputError` for a negative ridge, and for no
    examples or different numbers of them.
    """
    inputs, targets = np.asarray(x, np.float64), np.asarray(y, np.float64)
    penalty = checked_scale("fit_head", "ridge", ridge)
    n, p = inputs.shape
    if n != len(targets) or not n:
        raise InputError(f"fit_head: got {n} inputs and {len(targets)} targets; wanted the same number, at least one")
    left, singular, right = np.linalg.svd(inputs, full_matrices=False)
    kept = (singular > 0) & ((penalty > 0) | (singular > max(n, p) * np.finfo(np.float64).eps * singular[0]))
    left, singular, right = left[:, kept], singular[kept], right[kept]
    return right.T @ ((singular / (singular**2 + n * penalty))[:, None] * (left.T @ targets))


def recovering_head(emission: Num[Array, "m v"], function: Num[Array, " m"]) -> RecoveringHead:
    """The linear head on token probabilities that equals μᵀ P(h | context) for every context, or comes nearest.

    emission: E `[m, v]`, token probabilities of each state; function: μ `[m]`, a value for each state.

    Token probabilities of a context are g = Eᵀγ with γ = P(h | context), so gᵀb = μᵀγ for all γ exactly when Eb = μ,
    and that has a solution for every μ exactly when E has rank m.

    Cost: mv². Raises `InputError` when μ is zero.
    Source: Wei, Xie & Ma 2021, *Why Do Pretrained Language Models Help in Downstream Tasks?*: head tuning
    on a hidden Markov model, where the assumption is that token probabilities have full column rank.
    """
    matrix, wanted = np.asarray(emission, np.float64), np.asarray(function, np.float64)
    if not wanted.any():
        raise InputError("recovering_head: the function is zero for every state; wanted one that tells states apart")
    weights = np.linalg.lstsq(matrix, wanted)[0]
    return RecoveringHead(weights, float(np.linalg.norm(matrix @ weights - wanted) / np.linalg.norm(wanted)))
