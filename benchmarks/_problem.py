"""What the kernel benchmarks differentiate: some of a transformer's weights, one output, random tokens."""

import re

import jax
import numpy as np
from jaxtyping import Int

from ntkft import models
from ntkft._tree import leaf_paths
from ntkft._types import ApplyFn, PyTree

TINY = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}


def token_regression(
    model: str, *, weights: str, examples: int, tokens: int, seed: int
) -> tuple[ApplyFn, PyTree, Int[np.ndarray, "n 2 t"]]:
    """A function of the weights whose paths match the regular expression, those weights, and inputs.

    model: a source that `ntkft.models.load` takes, or "tiny", a small random one. The output is a fresh linear head
    on the mean token. Inputs are token ids, uniform over the vocabulary, and their masks, all ones, in one array,
    since `nt.batch` takes no dictionaries. What the tokens are does not change what a kernel costs.
    """
    readout = models.regression(pool="mean", scale=1.0, seed=0)
    if model == "tiny":
        loaded = models.random_model(models.read_config(TINY), readout=readout, seed=0)
    else:
        loaded = models.load(model, readout=readout)
    apply_chosen, chosen = only(loaded.apply_fn, loaded.params, weights)

    def apply_fn(params: PyTree, inputs: jax.Array, /) -> jax.Array:
        return apply_chosen(params, {"input_ids": inputs[:, 0], "attention_mask": inputs[:, 1]})

    ids = np.random.default_rng(seed).integers(loaded.config.vocab_size, size=(examples, tokens), dtype=np.int32)
    return apply_fn, chosen, np.stack([ids, np.ones_like(ids)], axis=1)


def only(apply_fn: ApplyFn, params: PyTree, regex: str) -> tuple[ApplyFn, PyTree]:
    """`apply_fn` as a function of the leaves whose path matches `regex` alone, and those leaves by path.

    All other leaves are constants at the values in `params`.
    """
    leaves, structure = leaf_paths(params), jax.tree.structure(params)
    chosen = {path: leaf for path, leaf in leaves.items() if re.search(regex, path)}

    def apply_chosen(chosen: PyTree, inputs: PyTree, /) -> jax.Array:
        return apply_fn(jax.tree.unflatten(structure, (leaves | chosen).values()), inputs)

    return apply_chosen, chosen
