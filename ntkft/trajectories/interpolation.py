"""Distributions between two models: what the small one prefers, what the large one prefers, and all in between.

    p ∝ relu(λ₁ p_small + λ₂ p_large),      λ₁, λ₂ ∈ [−1, 1]

over the vocabulary, in probability space (Xia et al. 2023, §4). λ = (0, 1) is the large model and (1, 0) the small one;
(1, −1) keeps the tokens to which the small model gives more, in proportion to how much more, and its normaliser
Σ relu(p_small − p_large) is the total variation distance of the two models.

Where no token has a positive weight there is no such distribution, and the large model's is taken, with a status.
"""

from dataclasses import dataclass
from functools import partial
from typing import SupportsFloat, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Num

from ntkft._errors import InputError
from ntkft._types import Array

Weights: TypeAlias = tuple[SupportsFloat, SupportsFloat]
"""(λ₁ of the small model, λ₂ of the large one)."""


@partial(jax.tree_util.register_dataclass, data_fields=["probabilities", "normaliser", "fell_back"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Interpolated:
    """Interpolated distributions, one for each of the leading axes of the two that they are made of.

    probabilities: `[…, v]`, rows that sum to one
    normaliser:    `[…]` Σ relu(λ₁ p_small + λ₂ p_large). Near the rounding of the inputs (1e-7 in float32) two models
                   agree to all digits, and what is left is rounding blown up
    fell_back:     `[…]` where no weight was positive, and p_large was taken
    """

    probabilities: Float[jax.Array, "... v"]
    normaliser: Float[jax.Array, "..."]
    fell_back: Bool[jax.Array, "..."]


def interpolate(small: Num[Array, "..."], large: Num[Array, "..."], weights: Weights) -> Interpolated:
    """The distribution p ∝ relu(λ₁ p_small + λ₂ p_large), for any number of pairs.

    small, large: probabilities `[…, v]` over one vocabulary, rows that sum to one; of logits take `jax.nn.softmax`, of
                  log-probabilities `jnp.exp`
    weights:      (λ₁, λ₂), each in [−1, 1]

    Works under `jit` and `vmap`, so rows are not checked to be distributions. Cost: O(v) a row. Raises `InputError` for
    shapes that differ or weights outside [−1, 1].
    """
    first, second = checked_weights("interpolate", weights)
    if small.shape != large.shape or small.ndim == 0:
        raise InputError(
            f"interpolate: got distributions {list(small.shape)} and {list(large.shape)}; wanted the same […, tokens]"
        )
    return rectified(jnp.asarray(small), jnp.asarray(large), first, second)


def rectified(small: jax.Array, large: jax.Array, first: float | jax.Array, second: float | jax.Array) -> Interpolated:
    """`interpolate` without its checks, for weights that are traced."""
    weighted = jax.nn.relu(first * small + second * large)
    normaliser = weighted.sum(axis=-1)
    fell_back = normaliser <= 0
    divisor = jnp.where(fell_back, 1, normaliser)
    probabilities = jnp.where(fell_back[..., None], large, weighted / divisor[..., None])
    return Interpolated(probabilities, normaliser, fell_back)


def total_variation(p: Num[Array, "..."], q: Num[Array, "..."]) -> Float[jax.Array, "..."]:
    """½ Σ |p − q| over the last axis: 0 for equal distributions, 1 for disjoint ones. p, q: `[…, v]`."""
    return jnp.abs(jnp.asarray(p) - jnp.asarray(q)).sum(axis=-1) / 2


def checked_weights(what: str, weights: Weights) -> tuple[float, float]:
    """(λ₁, λ₂) as floats; raises `InputError`, opened by `what`, for one outside [−1, 1]."""
    first, second = (float(weight) for weight in weights)
    if not (np.abs([first, second]) <= 1).all():
        raise InputError(
            f"{what}: weights are ({first:g}, {second:g}); wanted λ₁, λ₂ between −1 and 1, such as (1, −1)"
        )
    return first, second
