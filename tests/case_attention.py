"""Attention as other people write it: Flax modules, heads as axes of the weights, patches instead of tokens."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from ntkft.models import from_linen, from_nnx
from tests.case_parts import VOCABULARY, WIDTH, Case, N, T, embed, embeddings, normal, tokens
from tests.references import attention, layer_norm, mean_of_tokens, rms_norm

HEADS, DEPTH = 2, WIDTH // 2


def linen_attention() -> Case:
    """Flax Linen's attention: kernels `[d, heads, depth]` are flattened first, ids looked up by `take`."""
    module, inputs = _LinenEncoder(), tokens(30)
    variables = module.init(jax.random.key(30), inputs)
    apply_fn, params = from_linen(module, variables)
    return Case(apply_fn, _perturbed(params, 30), inputs)


def nnx_attention() -> Case:
    """Flax NNX's attention inside a residual block: parameters pass through `nnx.merge` into variables first."""
    apply_fn, params = from_nnx(_NnxEncoder(nnx.Rngs(31)))
    return Case(apply_fn, _perturbed(params, 31), tokens(31))


def grouped_query_rotary() -> Case:
    """Four query heads on two key and value heads, repeated after the product, with rotary positions and a mask."""
    draw = normal(32)
    params = {
        "token": draw(VOCABULARY, WIDTH),
        "query": draw(WIDTH, 4, DEPTH),
        "key": draw(WIDTH, 2, DEPTH),
        "value": draw(WIDTH, 2, DEPTH),
        "out": draw(4, DEPTH, WIDTH),
        "head": draw(WIDTH, 2),
    }

    def apply_fn(params, inputs):
        hidden = params["token"][inputs["input_ids"]]
        query, key, value = (jnp.einsum("ntd,dhk->nthk", hidden, params[name]) for name in ("query", "key", "value"))
        key, value = (jnp.repeat(array, 2, axis=2) for array in (_rotate(key), value))
        causal = np.tril(np.ones((T, T), bool))[None, None] & (inputs["attention_mask"][:, None, None] > 0)
        mixed = attention(_rotate(query), key, value, causal)
        hidden = hidden + jnp.einsum("nthk,hkd->ntd", mixed, params["out"])
        return hidden[:, -1] @ params["head"]

    return Case(apply_fn, params, tokens(32))


def gated_mlp() -> Case:
    """RMSNorm, and an MLP whose two branches are multiplied: the data operand of one leaf depends on the other."""
    draw = normal(33)
    block = {
        "scale": 1 + draw(WIDTH),
        "gate": draw(WIDTH, 2 * WIDTH),
        "up": draw(WIDTH, 2 * WIDTH),
        "down": draw(2 * WIDTH, WIDTH),
    }
    params = embeddings(draw) | {"block": block, "final_scale": 1 + draw(WIDTH), "head": draw(WIDTH, 2)}

    def apply_fn(params, inputs):
        hidden, block = embed(params, inputs), params["block"]
        x = rms_norm(hidden, block["scale"])
        hidden = hidden + (jax.nn.silu(x @ block["gate"]) * (x @ block["up"])) @ block["down"]
        hidden = rms_norm(hidden, params["final_scale"])
        return mean_of_tokens(hidden, inputs["attention_mask"]) @ params["head"]

    return Case(apply_fn, params, tokens(33))


def relative_bias() -> Case:
    """T5's bias on the scores: a gather by constants, transposed and broadcast over examples, beside the softmax."""
    draw = normal(34)
    params = _attention_params(draw) | {
        "token": draw(VOCABULARY, WIDTH),
        "distance": draw(2 * T - 1, HEADS),
        "head": draw(WIDTH, 2),
    }
    distances = np.arange(T)[None] - np.arange(T)[:, None] + T - 1

    def apply_fn(params, inputs):
        mask = inputs["attention_mask"]
        hidden = params["token"][inputs["input_ids"]]
        bias = params["distance"][distances].transpose(2, 0, 1)[None]
        hidden = hidden + _self_attention(params, hidden, mask, bias)
        return mean_of_tokens(hidden, mask) @ params["head"]

    return Case(apply_fn, params, tokens(34))


def image_patches() -> Case:
    """A vision transformer: patches by a strided convolution, flattened to tokens, then attention."""
    draw = normal(35)
    params = _attention_params(draw) | {
        "patch": draw(2, 2, 3, WIDTH),
        "patch_bias": draw(WIDTH),
        "position": draw(6, WIDTH),
        "head": draw(WIDTH, 2),
    }

    def apply_fn(params, images):
        patches = (
            _convolve(images, params["patch"], strides=(2, 2), padding="VALID") + params["patch_bias"][None, None, None]
        )
        hidden = patches.reshape(len(images), 6, WIDTH) + params["position"][None]
        hidden = hidden + _self_attention(params, hidden, np.ones((1, 6)))
        return hidden.mean(1) @ params["head"]

    return Case(apply_fn, params, normal(36)(N, 4, 6, 3))


def signal_convolutions() -> Case:
    """Overlapping windows of a padded signal, then one filter for each channel, pooled over what is no padding."""
    draw = normal(37)
    params = {"first": draw(3, 2, 6), "depthwise": draw(3, 1, 6), "bias": draw(6), "head": draw(6, 2)}

    def apply_fn(params, inputs):
        hidden = jax.nn.gelu(_convolve(inputs["signal"], params["first"], strides=(2,), padding="SAME"))
        hidden = _convolve(hidden, params["depthwise"], strides=(1,), padding="SAME", groups=6)
        hidden = jnp.tanh(hidden + params["bias"][None, None])
        return mean_of_tokens(hidden, inputs["mask"]) @ params["head"]

    mask = tokens(37)["attention_mask"]
    signal = normal(38)(N, 2 * T, 2) * np.repeat(mask, 2, axis=1)[:, :, None]
    return Case(apply_fn, params, {"signal": signal, "mask": mask})


def class_token() -> Case:
    """A learned token put before the others: the leaf is broadcast and concatenated, and read back after attention."""
    draw = normal(39)
    params = embeddings(draw) | _attention_params(draw) | {"class": draw(1, 1, WIDTH), "head": draw(WIDTH, 2)}

    def apply_fn(params, inputs):
        hidden = embed(params, inputs)
        n = hidden.shape[0]
        hidden = jnp.concatenate([jnp.broadcast_to(params["class"], (n, 1, WIDTH)), hidden], axis=1)
        mask = jnp.concatenate([np.ones((n, 1), np.int32), inputs["attention_mask"]], axis=1)
        return (hidden + _self_attention(params, hidden, mask))[:, 0] @ params["head"]

    return Case(apply_fn, params, tokens(39))


class _LinenEncoder(linen.Module):
    @linen.compact
    def __call__(self, inputs):
        mask, dtype = inputs["attention_mask"], jnp.float64
        hidden = linen.Embed(VOCABULARY, WIDTH, param_dtype=dtype)(inputs["input_ids"])
        normal_hidden = linen.LayerNorm(param_dtype=dtype)(hidden)
        attend = linen.MultiHeadDotProductAttention(HEADS, param_dtype=dtype)
        hidden = hidden + attend(normal_hidden, mask=linen.make_attention_mask(mask > 0, mask > 0))
        hidden = hidden + linen.Dense(WIDTH, param_dtype=dtype)(linen.gelu(hidden))
        return linen.Dense(2, param_dtype=dtype)(mean_of_tokens(hidden, mask))


class _NnxEncoder(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        dtype = jnp.float64
        self.embed = nnx.Embed(VOCABULARY, WIDTH, param_dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, param_dtype=dtype, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(
            HEADS, WIDTH, param_dtype=dtype, attention_fn=_without_keywords, decode=False, rngs=rngs
        )
        self.head = nnx.Linear(WIDTH, 2, param_dtype=dtype, rngs=rngs)

    def __call__(self, inputs):
        mask = inputs["attention_mask"]
        hidden = self.embed(inputs["input_ids"])
        hidden = hidden + self.attend(self.norm(hidden), mask=mask[:, None, None] > 0)
        return self.head(mean_of_tokens(hidden, mask))


def _without_keywords(query, key, value, mask, **_):
    """NNX hands its attention function more keywords than this one needs."""
    return attention(query, key, value, mask)


def _perturbed(params, seed):
    """Flax starts biases at zero and scales at one, where mistakes can cancel."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + 0.3 * generator.normal(size=leaf.shape), params)


def _attention_params(draw):
    return {
        "norm": {"scale": 1 + draw(WIDTH), "bias": draw(WIDTH)},
        "qkv": draw(WIDTH, 3, HEADS, DEPTH),
        "out": draw(WIDTH, WIDTH),
    }


def _self_attention(params, hidden, mask, bias=None):
    """Pre-norm attention without the residual; query, key and value are indices of one axis of the projection."""
    normal_hidden = layer_norm(hidden, params["norm"]["scale"], params["norm"]["bias"])
    fused = jnp.einsum("ntd,dchk->ntchk", normal_hidden, params["qkv"])
    mixed = attention(fused[:, :, 0], fused[:, :, 1], fused[:, :, 2], mask[:, None, None] > 0, bias)
    return mixed.reshape(hidden.shape) @ params["out"]


def _rotate(x):
    """Rotary positions: pairs of features (i, i + d/2) turned by t·10^-i."""
    half = x.shape[-1] // 2
    angles = (np.arange(x.shape[1])[:, None] * 10.0 ** -np.arange(half)[None])[None, :, None]
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate(
        [first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)], axis=-1
    )


def _convolve(x, kernel, *, strides, padding, groups=1):
    """Channels last, kernel `[*window, in, out]`."""
    layout = ("NWC", "WIO", "NWC") if kernel.ndim == 3 else ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=layout, feature_group_count=groups
    )


CASES = (
    linen_attention,
    nnx_attention,
    grouped_query_rotary,
    gated_mlp,
    relative_bias,
    image_patches,
    signal_convolutions,
    class_token,
)
