"""Forward–backward: what a token sequence says of its hidden states. In log space: long sequences do not underflow.

    forward    a_i(h) = log P(x_{<i}, h_i = h),       a_1 = log π,    a_{i+1} = log Σ_h exp(a_i + log E[h, x_i]) T[h, ·]
    backward   b_i(h) = log P(x_{>i} | h_i = h),      b_t = 0,        b_{i−1} = log Σ_h T[·, h] exp(b_i + log E[h, x_i])

a_i leaves the token at i out, so the posterior without that token, which is all that a model sees of a masked position,
comes as cheaply as the one with it.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ntkft._errors import InputError, refuse
from ntkft._types import Array
from ntkft.hmm.discrete import DiscreteHMM


@dataclass(frozen=True, eq=False)
class Posteriors:
    """Posteriors of the hidden states of n sequences.

    log_likelihood: log P(x_1 … x_t), `[n]`
    smoothed:       P(h_i | x_1 … x_t), `[n, t, m]`
    masked:         P(h_i | all tokens but x_i), `[n, t, m]`
    """

    log_likelihood: Float[np.ndarray, " n"]
    smoothed: Float[np.ndarray, "n t m"]
    masked: Float[np.ndarray, "n t m"]


def forward_backward(model: DiscreteHMM, tokens: Int[Array, "n t"]) -> Posteriors:
    """Posteriors of every position of every sequence, in float64 whatever JAX's default is.

    Cost: n·t·m² operations and n·t·m numbers; one compilation for each shape. Raises `InputError` for tokens that are
    not in the vocabulary and for sequences that have probability zero, which have no posterior.
    """
    observed, vocabulary = np.asarray(tokens), model.emission.shape[1]
    problems = []
    if not observed.size:
        problems.append(
            f"got tokens of shape {list(observed.shape)}; wanted at least one sequence of at least one token"
        )
    elif observed.min() < 0 or observed.max() >= vocabulary:
        problems.append(f"tokens go from {observed.min()} to {observed.max()}; the model has 0 to {vocabulary - 1}")
    refuse("forward_backward", problems)
    with jax.enable_x64(True), np.errstate(divide="ignore"):
        logs = [jnp.asarray(np.log(part)) for part in (model.initial, model.transition, model.emission)]
        found = [np.asarray(array) for array in _forward_backward(*logs, jnp.asarray(observed))]
    if not np.all(np.isfinite(found[0])):
        impossible = int(np.argmin(np.isfinite(found[0])))
        raise InputError(
            f"forward_backward: sequence {impossible} has probability zero, so its states have no posterior"
        )
    return Posteriors(*found)


def token_probabilities(model: DiscreteHMM, states: Float[Array, "n t m"]) -> Float[np.ndarray, "n t v"]:
    """P(x_i | …) = Eᵀγ for posteriors γ of h_i; of masked ones, what a masked language model at its optimum outputs."""
    return np.asarray(states, np.float64) @ model.emission


@jax.jit
def _forward_backward(initial, transition, emission, tokens):
    """Of each sequence: log likelihood, smoothed and masked posteriors."""

    def of_one(sequence):
        seen = emission.T[sequence]  # [t, m]

        def forward(before, now):
            return jax.nn.logsumexp((before + now)[:, None] + transition, axis=0), before

        def backward(after, now):
            return jax.nn.logsumexp((after + now)[None, :] + transition, axis=1), after

        end, without = jax.lax.scan(forward, initial, seen)
        _, later = jax.lax.scan(backward, jnp.zeros_like(initial), seen, reverse=True)
        masked = without + later
        return jax.nn.logsumexp(end), jax.nn.softmax(masked + seen, axis=-1), jax.nn.softmax(masked, axis=-1)

    return jax.vmap(of_one)(tokens)
