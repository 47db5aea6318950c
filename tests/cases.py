"""Models on which every kernel method must agree: name → (apply_fn, params, inputs) with several outputs.

All are tiny, in float64 and evaluated on seven examples. Linear models alone would let swapped axes pass; attention,
padding, shared weights and integer inputs would not.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkft.models import readouts
from ntkft.models.loading import random_model
from ntkft.models.transformer import TransformerConfig
from tests.references import layer_norm

N, T, WIDTH, VOCABULARY = 7, 6, 8, 11


@dataclass(frozen=True)
class Case:
    """A model with several outputs and its inputs."""

    apply_fn: Callable[[Any, Any], jax.Array]
    params: Any
    inputs: Any

    def one_output(self) -> Callable[[Any, Any], jax.Array]:
        """The difference of the first two outputs, for kernels with outputs="scalar"."""

        def difference(params, inputs):
            outputs = self.apply_fn(params, inputs)
            return outputs[:, :1] - outputs[:, 1:2]

        return difference


def linear() -> Case:
    """F = x W + b."""
    draw = _normal(0)
    return Case(
        lambda params, x: x @ params["kernel"] + params["bias"][None],
        {"kernel": draw(5, 3), "bias": draw(3)},
        draw(N, 5),
    )


def mlp() -> Case:
    """Two hidden layers with tanh."""
    draw = _normal(1)

    def apply_fn(params, x):
        for layer in params[:-1]:
            x = jnp.tanh(x @ layer["kernel"] + layer["bias"][None])
        return x @ params[-1]["kernel"] + params[-1]["bias"][None]

    sizes = (5, 8, 6, 2)
    params = [{"kernel": draw(a, b), "bias": draw(b)} for a, b in itertools.pairwise(sizes)]
    return Case(apply_fn, params, draw(N, 5))


def fused_decoder() -> Case:
    """A causal decoder whose queries, keys and values are one projection, split after the product."""
    draw = _normal(2)
    params = _decoder_params(draw) | {"head": draw(WIDTH, 3)}

    def apply_fn(params, inputs):
        hidden = _decode(params, inputs)
        return hidden[:, -1] @ params["head"]

    return Case(apply_fn, params, _tokens(2))


def tied_decoder() -> Case:
    """The same decoder with next-token logits through the embedding table, which is thus used twice."""
    params = _decoder_params(_normal(3))
    return Case(lambda params, inputs: _decode(params, inputs)[:, -1] @ params["token"].T, params, _tokens(3))


def bert() -> Case:
    """Our bidirectional encoder, post-norm with token types and padding, a linear readout on the mean."""
    return _transformer("bert", 4)


def gpt2() -> Case:
    """Our causal decoder, pre-norm with a final norm, a linear readout on the last token."""
    return _transformer("gpt2", 5)


CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case for case in (linear, mlp, fused_decoder, tied_decoder, bert, gpt2)
}


def _normal(seed: int):
    generator = np.random.default_rng(seed)
    return lambda *shape: generator.normal(size=shape) / np.sqrt(shape[0])


def _tokens(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(2, T + 1, N)
    return {
        "input_ids": generator.integers(0, VOCABULARY, (N, T)).astype(np.int32),
        "attention_mask": (np.arange(T)[None] < lengths[:, None]).astype(np.int32),
    }


def _decoder_params(draw):
    def block():
        return {
            "qkv": draw(WIDTH, 3 * WIDTH),
            "qkv_bias": draw(3 * WIDTH),
            "out": draw(WIDTH, WIDTH),
            "up": draw(WIDTH, 2 * WIDTH),
            "down": draw(2 * WIDTH, WIDTH),
            "scale": 1 + draw(WIDTH),
            "bias": draw(WIDTH),
        }

    return {"token": draw(VOCABULARY, WIDTH), "position": draw(T, WIDTH), "blocks": [block()]}


def _decode(params, inputs):
    ids = inputs["input_ids"]
    t = ids.shape[1]
    hidden = params["token"][ids] + params["position"][None, :t]
    causal = np.tril(np.ones((t, t), bool))[None] & (inputs["attention_mask"][:, None, :] > 0)
    for block in params["blocks"]:
        normal = layer_norm(hidden, block["scale"], block["bias"])
        fused = normal @ block["qkv"] + block["qkv_bias"][None, None]
        query, key, value = jnp.split(fused, 3, axis=-1)
        scores = jnp.einsum("ntd,nsd->nts", query, key) / np.sqrt(WIDTH)
        weights = jax.nn.softmax(jnp.where(causal, scores, -1e30), axis=-1)
        hidden = hidden + jnp.einsum("nts,nsd->ntd", weights, value) @ block["out"]
        hidden = hidden + jax.nn.gelu(hidden @ block["up"]) @ block["down"]
    return hidden


def _transformer(family: str, seed: int) -> Case:
    bert_like = family == "bert"
    config = TransformerConfig(
        vocab_size=VOCABULARY,
        width=WIDTH,
        layers=1,
        heads=2,
        mlp_width=2 * WIDTH,
        max_positions=T,
        token_types=2 if bert_like else 0,
        activation="gelu" if bert_like else "gelu_new",
        norm_epsilon=1e-5,
        norm_first=not bert_like,
        embedding_norm=bert_like,
        final_norm=not bert_like,
        causal=not bert_like,
        attention_scale=(0.5,),
        pooler=False,
        lm_head_transform=False,
        lm_head_bias=False,
        lm_head_tied=True,
    )
    readout = readouts.linear(2, pool="mean" if bert_like else "last", scale=1.0, seed=seed, bias=True)
    model = random_model(config, readout=readout, seed=seed, dtype=jnp.float64)
    return Case(model.apply_fn, model.params, _tokens(seed))
