"""What the test models share: the record of a model, random draws, token inputs and one small decoder."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.references import layer_norm
from tests.tolerances import KERNEL_F64

N, T, WIDTH, VOCABULARY = 7, 6, 8, 11


@dataclass(frozen=True)
class Case:
    """A model with several outputs and its inputs.

    reference: the same function and derivative, written so that forward mode can follow it; None if `apply_fn` can
    tolerance: of its kernels against `reference`, from the table of tolerances
    """

    apply_fn: Callable[[Any, Any], jax.Array]
    params: Any
    inputs: Any
    reference: Callable[[Any, Any], jax.Array] | None = None
    tolerance: float = KERNEL_F64

    def one_output(self) -> Callable[[Any, Any], jax.Array]:
        """The difference of the first two outputs, for kernels with outputs="scalar"."""

        def difference(params, inputs):
            outputs = self.apply_fn(params, inputs)
            return outputs[:, :1] - outputs[:, 1:2]

        return difference


def normal(seed: int) -> Callable[..., np.ndarray]:
    """`draw(*shape)`: independent normal entries of variance 1/shape[0]."""
    generator = np.random.default_rng(seed)
    return lambda *shape: generator.normal(size=shape) / np.sqrt(shape[0])


def tokens(seed: int) -> dict[str, np.ndarray]:
    """Token ids and a padding mask on the right; every example has at least two tokens."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(2, T + 1, N)
    return {
        "input_ids": generator.integers(0, VOCABULARY, (N, T)).astype(np.int32),
        "attention_mask": (np.arange(T)[None] < lengths[:, None]).astype(np.int32),
    }


def embed(params, inputs):
    """Token and position embeddings `[n, t, d]`."""
    ids = inputs["input_ids"]
    return params["token"][ids] + params["position"][None, : ids.shape[1]]


def embeddings(draw) -> dict[str, np.ndarray]:
    """Parameters of `embed`."""
    return {"token": draw(VOCABULARY, WIDTH), "position": draw(T, WIDTH)}


def causal_mask(inputs):
    """`[n, t, s]`: position t sees itself and the earlier tokens that are no padding."""
    t = inputs["input_ids"].shape[1]
    return np.tril(np.ones((t, t), bool))[None] & (inputs["attention_mask"][:, None, :] > 0)


def block_params(draw) -> dict[str, np.ndarray]:
    """Parameters of `decoder_block`."""
    return {
        "qkv": draw(WIDTH, 3 * WIDTH),
        "qkv_bias": draw(3 * WIDTH),
        "out": draw(WIDTH, WIDTH),
        "up": draw(WIDTH, 2 * WIDTH),
        "down": draw(2 * WIDTH, WIDTH),
        "scale": 1 + draw(WIDTH),
        "bias": draw(WIDTH),
    }


def decoder_block(block, hidden, mask):
    """Pre-norm attention with one head and a fused projection, then an MLP, both residual."""
    fused = layer_norm(hidden, block["scale"], block["bias"]) @ block["qkv"] + block["qkv_bias"][None, None]
    query, key, value = jnp.split(fused, 3, axis=-1)
    scores = jnp.einsum("ntd,nsd->nts", query, key) / math.sqrt(WIDTH)
    weights = jax.nn.softmax(jnp.where(mask, scores, -1e30), axis=-1)
    hidden = hidden + jnp.einsum("nts,nsd->ntd", weights, value) @ block["out"]
    return hidden + jax.nn.gelu(hidden @ block["up"]) @ block["down"]


def decoder_params(draw, layers: int = 1) -> dict[str, Any]:
    """Parameters of `decode`."""
    return embeddings(draw) | {"blocks": [block_params(draw) for _ in range(layers)]}


def decode(params, inputs, apply_block=decoder_block):
    """Hidden state `[n, d]` at the last position, after all blocks."""
    hidden, mask = embed(params, inputs), causal_mask(inputs)
    for block in params["blocks"]:
        hidden = apply_block(block, hidden, mask)
    return hidden[:, -1]
