"""Models whose weights are used more than once, or not in the layout and precision in which they are stored."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from tests.case_parts import (
    VOCABULARY,
    WIDTH,
    Case,
    N,
    block_params,
    causal_mask,
    decode,
    decoder_block,
    decoder_params,
    embed,
    embeddings,
    normal,
    tokens,
)
from tests.references import attention, mean_of_tokens
from tests.tolerances import KERNEL_F32


def tied_label_words() -> Case:
    """Few logits through rows of the table that also embeds: a gather and then a transpose before the product."""
    params, labels = decoder_params(normal(10)), np.array([7, 2, 7])
    return Case(lambda params, inputs: decode(params, inputs) @ params["token"][labels].T, params, tokens(10))


def tied_vocabulary_slice() -> Case:
    """The same with a range of words and a bias over the vocabulary: slices of two leaves, one used elsewhere too."""
    draw = normal(11)
    params = decoder_params(draw) | {"bias": draw(VOCABULARY)}

    def apply_fn(params, inputs):
        return jnp.einsum("nd,vd->nv", decode(params, inputs), params["token"][3:6]) + params["bias"][None, 3:6]

    return Case(apply_fn, params, tokens(11))


def block_thrice() -> Case:
    """One block applied three times, as ALBERT does: every weight has three sites with cross terms between them."""
    draw = normal(12)
    params = embeddings(draw) | {"block": block_params(draw), "head": draw(WIDTH, 2)}

    def apply_fn(params, inputs):
        hidden, mask = embed(params, inputs), causal_mask(inputs)
        for _ in range(3):
            hidden = decoder_block(params["block"], hidden, mask)
        return mean_of_tokens(hidden, inputs["attention_mask"]) @ params["head"]

    return Case(apply_fn, params, tokens(12))


def matrix_thrice() -> Case:
    """An autoencoder's matrix used twice as stored and once transposed: data contract with either of its axes."""
    draw = normal(13)

    def apply_fn(params, x):
        code = jnp.tanh(x @ params["matrix"])
        return jnp.tanh(code @ params["matrix"].T) @ params["matrix"] @ params["head"]

    return Case(apply_fn, {"matrix": draw(5, 8), "head": draw(8, 2)}, draw(N, 5))


def squared_matrix() -> Case:
    """A product of one leaf with itself: two views in one equation and no data operand."""
    draw = normal(14)

    def apply_fn(params, x):
        return jnp.tanh(x @ (params["matrix"] @ params["matrix"].T)) @ params["matrix"][:, :2]

    return Case(apply_fn, {"matrix": draw(5, 4)}, draw(N, 5))


def torch_layout() -> Case:
    """Weights `[out, in]` as torch stores them, the fused projection split before it is transposed and used."""
    draw = normal(15)
    params = embeddings(draw) | {
        "in_proj_weight": draw(3 * WIDTH, WIDTH),
        "in_proj_bias": draw(3 * WIDTH),
        "out_proj": {"weight": draw(WIDTH, WIDTH), "bias": draw(WIDTH)},
        "classifier": {"weight": draw(3, WIDTH), "bias": draw(3)},
    }

    def affine(x, weight, bias):
        return x @ weight.T + bias.reshape((1,) * (x.ndim - 1) + (-1,))

    def apply_fn(params, inputs):
        hidden, mask = embed(params, inputs), inputs["attention_mask"]
        weights, biases = jnp.split(params["in_proj_weight"], 3), jnp.split(params["in_proj_bias"], 3)
        heads = [
            affine(hidden, weight, bias).reshape(*hidden.shape[:2], 2, WIDTH // 2)
            for weight, bias in zip(weights, biases, strict=True)
        ]
        mixed = attention(heads[0], heads[1], heads[2], mask[:, None, None] > 0).reshape(hidden.shape)
        hidden = hidden + affine(mixed, params["out_proj"]["weight"], params["out_proj"]["bias"])
        return affine(mean_of_tokens(hidden, mask), params["classifier"]["weight"], params["classifier"]["bias"])

    return Case(apply_fn, params, tokens(15))


def mixed_precision(compute, tolerance: float) -> Case:
    """A decoder of float32 parameters that computes in another precision: every leaf is cast before its use.

    Reverse mode gives the gradient of a float32 leaf in float32, whatever `compute` is; forward mode does not.
    """
    draw = normal(16)
    params = decoder_params(draw) | {"head": draw(WIDTH, 2)}

    def apply_fn(params, inputs):
        low = jax.tree.map(lambda leaf: leaf.astype(compute), params)
        return (decode(low, inputs) @ low["head"]).astype(np.float64)

    low = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    return Case(apply_fn, low, tokens(16), tolerance=tolerance)


def lifted_to_float64() -> Case:
    """Float32 parameters cast to float64 and then used: their gradients, and no more, are rounded to float32."""
    return mixed_precision(np.float64, KERNEL_F32)


def bfloat16_in_integers() -> Case:
    """Bfloat16 compute with float32 parameters, on integers so small that no step rounds: agreement is exact."""
    generator = np.random.default_rng(17)

    def draw(*shape):
        return generator.integers(-1, 2, shape).astype(np.float32)

    params = {"token": draw(VOCABULARY, 4), "dense": draw(6, 4), "bias": draw(6), "head": draw(6, 2)}

    def apply_fn(params, inputs):
        low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
        hidden = jax.nn.relu(low["token"][inputs["input_ids"]] @ low["dense"].T + low["bias"][None, None])
        kept = (inputs["attention_mask"] > 0)[:, :, None]
        return (jnp.where(kept, hidden, 0).sum(1) @ low["head"]).astype(np.float32)

    return Case(apply_fn, params, tokens(17))


def weight_normalisation() -> Case:
    """Rows g v/|v|: the matrix that meets the data is a function of two leaves and not a view of either."""
    draw = normal(18)

    def apply_fn(params, x):
        for layer in params:
            direction = layer["v"] / jnp.linalg.norm(layer["v"], axis=0, keepdims=True)
            x = jnp.tanh(x @ (layer["g"][None] * direction) + layer["bias"][None])
        return x

    params = [{"v": draw(a, b), "g": 1 + draw(b), "bias": draw(b)} for a, b in ((5, 6), (6, 2))]
    return Case(apply_fn, params, draw(N, 5))


def lora() -> Case:
    """Factors A and B trained beside a frozen decoder that the function closes over."""
    frozen = _frozen_decoder(19)
    params = _low_rank(normal(21))

    def apply_fn(params, inputs):
        def block(weights, hidden, mask):
            hidden = decoder_block(weights, hidden, mask)
            return hidden + (2.0 / math.sqrt(3)) * (hidden @ params["a"]) @ params["b"]

        return decode(frozen, inputs, block) @ frozen["head"]

    return Case(apply_fn, params, tokens(19))


def lora_merged() -> Case:
    """The same kind of factors merged into the frozen weight first: A meets B and not the data."""
    frozen = _frozen_decoder(20)
    params = _low_rank(normal(22))

    def apply_fn(params, inputs):
        (block,) = frozen["blocks"]
        merged = block | {"out": block["out"] + 0.5 * params["a"] @ params["b"]}
        return decode(frozen | {"blocks": [merged]}, inputs) @ frozen["head"]

    return Case(apply_fn, params, tokens(20))


def _frozen_decoder(seed):
    draw = normal(seed)
    return jax.tree.map(jnp.asarray, decoder_params(draw) | {"head": draw(WIDTH, 2)})


def _low_rank(draw):
    return {"a": draw(WIDTH, 3), "b": draw(3, WIDTH)}


CASES = (
    tied_label_words,
    tied_vocabulary_slice,
    block_thrice,
    matrix_thrice,
    squared_matrix,
    torch_layout,
    lifted_to_float64,
    bfloat16_in_integers,
    weight_normalisation,
    lora,
    lora_merged,
)
