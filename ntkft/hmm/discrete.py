"""A discrete hidden Markov model of text: m states, transitions mixed of permutations, softmax emissions of v tokens.

A mixture of permutation matrices is doubly stochastic, so the uniform distribution is stationary. States with equal
rows of the emission matrix look alike in every single token, and only context tells them apart.
Source: Wei, Xie & Ma 2021, arXiv 2106.09226, section 3, for head tuning on such models; transitions as in Xie et al.
2022.
"""

from dataclasses import dataclass

import numpy as np
import scipy.special
from jaxtyping import Float, Int, Num

from ntkft._errors import refuse
from ntkft._types import Array


@dataclass(frozen=True, eq=False)
class DiscreteHMM:
    """One model, from `discrete_hmm` or `permutation_hmm`, which check it: probabilities in float64, rows sum to one.

    initial: `[m]`, of the first state; transition: `[m, m]`, from row to column; emission: E `[m, v]`
    """

    initial: Float[np.ndarray, " m"]
    transition: Float[np.ndarray, "m m"]
    emission: Float[np.ndarray, "m v"]


def discrete_hmm(initial: Num[Array, "..."], transition: Num[Array, "..."], emission: Num[Array, "..."]) -> DiscreteHMM:
    """The model with these probabilities, `[m]`, `[m, m]` and `[m, v]`.

    Raises `InputError` for other shapes, entries below zero and rows that do not sum to one.
    """
    parts = {"initial": initial, "transition": transition, "emission": emission}
    arrays = {name: np.asarray(part, np.float64) for name, part in parts.items()}
    problems = [
        f"{name} is no distribution; wanted entries of at least zero that sum to one in every row"
        for name, array in arrays.items()
        if not (np.all(array >= 0) and np.allclose(array.sum(axis=-1), 1, rtol=0, atol=1e-9))
    ]
    m, shapes = arrays["initial"].size, [list(array.shape) for array in arrays.values()]
    if shapes != [[m], [m, m], [m, *shapes[2][1:2]]]:
        problems.append(f"got shapes {shapes[0]}, {shapes[1]}, {shapes[2]}; wanted [m], [m, m] and [m, v]")
    refuse("discrete_hmm", problems)
    return DiscreteHMM(**arrays)


def permutation_hmm(
    states: int, tokens: int, *, permutations: int, distinct: int, sharpness: float, seed: int
) -> DiscreteHMM:
    """Random transitions Σ_k w_k P_k, weights uniform on the simplex; random emissions; a uniform, stationary start.

    permutations: how many are mixed; one alone is a clock, many mix fast
    distinct:     different rows of the emission matrix, ≤ states: state h emits like state h mod `distinct`. They are
                  independent when there are at least as many tokens, so this is the matrix's rank
    sharpness:    standard deviation of the logits; 0 would tell nothing

    Cost: m² for each permutation. Raises `InputError` for sizes below one, distinct above states, a sharpness that is
    not positive, and a negative seed.
    """
    sizes = {"states": states, "tokens": tokens, "permutations": permutations, "distinct": distinct}
    problems = [f"{name} is {size}; wanted at least 1" for name, size in sizes.items() if size < 1]
    if distinct > states:
        problems.append(f"distinct is {distinct}; wanted at most one emission for each of the {states} states")
    if not 0 < sharpness < np.inf:
        problems.append(f"sharpness is {sharpness:g}; wanted a finite number above zero")
    if seed < 0:
        problems.append(f"seed is {seed}; wanted a whole number of at least 0")
    refuse("permutation_hmm", problems)
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(permutations))
    permuted = np.stack([np.eye(states)[generator.permutation(states)] for _ in weights])
    transition = np.tensordot(weights, permuted, axes=1)
    emission = scipy.special.softmax(sharpness * generator.standard_normal((distinct, tokens)), axis=1)
    return discrete_hmm(np.full(states, 1 / states), transition, emission[np.arange(states) % distinct])


def sample_tokens(model: DiscreteHMM, sequences: int, length: int, seed: int) -> Int[np.ndarray, "n t"]:
    """Independent token sequences `[n, t]`. Cost: n·t draws. Raises `InputError` for sizes below one or a bad seed."""
    sizes = (("sequences", sequences, 1), ("length", length, 1), ("seed", seed, 0))
    problems = [f"{name} is {size}; wanted at least {least}" for name, size, least in sizes if size < least]
    refuse("sample_tokens", problems)
    generator = np.random.default_rng(seed)
    state = _draw(np.tile(model.initial, (sequences, 1)), generator)
    tokens = np.empty((sequences, length), np.int64)
    for position in range(length):
        tokens[:, position] = _draw(model.emission[state], generator)
        state = _draw(model.transition[state], generator)
    return tokens


def _draw(probabilities: Float[np.ndarray, "n c"], generator: np.random.Generator) -> Int[np.ndarray, " n"]:
    """One category for each row, by inversion of the cumulative sum; rounding in its last entry cannot fall outside."""
    steps = np.cumsum(probabilities[:, :-1], axis=1)
    return np.sum(generator.random(len(probabilities))[:, None] >= steps, axis=1)
