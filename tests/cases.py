"""Models on which every kernel method must agree: name → (apply_fn, params, inputs) with several outputs.

All are tiny and evaluated on seven examples, in float64 unless a case says otherwise. Linear models alone would let
swapped axes pass; attention, padding, shared weights and integer inputs would not. The first six are the models that
people start from; the others are each one way of writing a model that is hard to differentiate by its structure.
"""

import itertools
from collections.abc import Callable

import jax.numpy as jnp

from ntkft.models import read_config, readouts
from ntkft.models.loading import random_model
from tests import case_attention, case_leaves, case_sharing, case_transformations
from tests.case_parts import VOCABULARY, WIDTH, Case, N as N, T as T, decode, decoder_params, normal, tokens


def linear() -> Case:
    """F = x W + b."""
    draw = normal(0)
    return Case(
        lambda params, x: x @ params["kernel"] + params["bias"][None],
        {"kernel": draw(5, 3), "bias": draw(3)},
        draw(N, 5),
    )


def mlp() -> Case:
    """Two hidden layers with tanh."""
    draw = normal(1)

    def apply_fn(params, x):
        for layer in params[:-1]:
            x = jnp.tanh(x @ layer["kernel"] + layer["bias"][None])
        return x @ params[-1]["kernel"] + params[-1]["bias"][None]

    sizes = (5, 8, 6, 2)
    params = [{"kernel": draw(a, b), "bias": draw(b)} for a, b in itertools.pairwise(sizes)]
    return Case(apply_fn, params, draw(N, 5))


def fused_decoder() -> Case:
    """A causal decoder whose queries, keys and values are one projection, split after the product."""
    draw = normal(2)
    params = decoder_params(draw) | {"head": draw(WIDTH, 3)}
    return Case(lambda params, inputs: decode(params, inputs) @ params["head"], params, tokens(2))


def tied_decoder() -> Case:
    """The same decoder with next-token logits through the embedding table, which is thus used twice."""
    params = decoder_params(normal(3))
    return Case(lambda params, inputs: decode(params, inputs) @ params["token"].T, params, tokens(3))


def bert() -> Case:
    """Our bidirectional encoder, post-norm with token types and padding, a linear readout on the mean."""
    return _transformer("bert", 4)


def gpt2() -> Case:
    """Our causal decoder, pre-norm with a final norm, a linear readout on the last token."""
    return _transformer("gpt2", 5)


TINY = {
    "bert": {
        "model_type": "bert",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": T,
        "layer_norm_eps": 1e-5,
    },
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": VOCABULARY,
        "n_positions": T,
        "n_embd": WIDTH,
        "n_layer": 1,
        "n_head": 2,
        "n_inner": 2 * WIDTH,
    },
}


def _transformer(family: str, seed: int) -> Case:
    config = read_config(TINY[family])
    bert_like = family == "bert"
    readout = readouts.linear(2, pool="mean" if bert_like else "last", scale=1.0, seed=seed, bias=True)
    model = random_model(config, readout=readout, seed=seed, dtype=jnp.float64)
    return Case(model.apply_fn, model.params, tokens(seed))


FIRST_SIX = (linear, mlp, fused_decoder, tied_decoder, bert, gpt2)

CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case
    for case in (
        *FIRST_SIX,
        *case_sharing.CASES,
        *case_attention.CASES,
        *case_transformations.CASES,
        *case_leaves.CASES,
    )
}
