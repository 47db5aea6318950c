"""One transformer for every supported checkpoint; what differs between families is configuration.

With hidden states h, attention A, feed-forward network M and LayerNorm N, a block computes

    norm_first = False (BERT):   a = N(h + A(h)),   h' = N(a + M(a))
    norm_first = True (GPT-2):   a = h + A(N(h)),   h' = a + M(N(a))

and attention, per head, softmax(c Q Kᵀ) V over the keys that a query may see (Vaswani et al. 2017, eq. 1), with the
scale c of the checkpoint. Everything runs in the dtype of the parameters, softmax included, so that float64 stays
float64; only the mean and variance of a LayerNorm are never taken below float32.

Position ids count the real tokens before a token. For right padding these are 0..t-1, as in the reference
implementations; for left padding the count, unlike the column number, keeps padding without influence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int

from ntkft._errors import refuse
from ntkft._types import Array

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}
"""Activations by the names that checkpoints use: "gelu" is exact (erf), the other two are its tanh approximation."""


@dataclass(frozen=True)
class TransformerConfig:
    """Shape and variant of a `Transformer`. No field has a default: each one changes the function.

    Raises `InputError` listing every field that is out of range.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    max_positions: int
    token_types: int
    """Rows of the token-type table; 0: the model has none."""
    activation: str
    """A key of `ACTIVATIONS`."""
    norm_epsilon: float
    norm_first: bool
    """LayerNorm before attention and MLP (GPT-2) or after each residual sum (BERT)."""
    embedding_norm: bool
    final_norm: bool
    causal: bool
    attention_scale: tuple[float, ...]
    """Factor on the scores q·k, one per layer."""
    pooler: bool
    """Whether the architecture has a pooler: tanh of a dense layer on the first token."""
    lm_head_transform: bool
    """Dense layer, activation and LayerNorm before the decoder of the LM head (BERT)."""
    lm_head_bias: bool
    lm_head_tied: bool
    """The decoder of the LM head is the token embedding."""

    def __post_init__(self):
        sizes = {field.name: getattr(self, field.name) for field in fields(self) if field.type is int}
        smallest = dict.fromkeys(sizes, 1) | {"token_types": 0}
        problems = [
            f"{name} is {size}; it must be at least {smallest[name]}"
            for name, size in sizes.items()
            if size < smallest[name]
        ]
        if self.heads > 0 and self.width % self.heads:
            problems.append(f"width {self.width} is not a multiple of heads {self.heads}")
        if len(self.attention_scale) != self.layers:
            problems.append(f"attention_scale has {len(self.attention_scale)} entries for {self.layers} layers")
        if self.activation not in ACTIVATIONS:
            problems.append(f"activation is {self.activation!r}; supported: {', '.join(ACTIVATIONS)}")
        if not 0 <= self.norm_epsilon < 1:
            problems.append(f"norm_epsilon is {self.norm_epsilon}; it must be in [0, 1)")
        refuse("TransformerConfig", problems)


class Embeddings(nnx.Module):
    """Sum of token, position and (if the model has them) token-type embeddings, then an optional LayerNorm."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.token = _table(config.vocab_size, config, rngs)
        self.position = _table(config.max_positions, config, rngs)
        self.token_type = _table(config.token_types, config, rngs) if config.token_types else None
        self.norm = _norm(config, rngs) if config.embedding_norm else None

    def __call__(
        self, ids: Int[jax.Array, "n t"], mask: Bool[jax.Array, "n t"], token_types: Int[jax.Array, "n t"]
    ) -> Float[jax.Array, "n t d"]:
        positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
        hidden = _look_up(self.token, ids) + _look_up(self.position, positions)
        if self.token_type is not None:
            hidden += _look_up(self.token_type, token_types)
        return hidden if self.norm is None else self.norm(hidden)


class Attention(nnx.Module):
    """Multi-head attention with separate query, key and value kernels."""

    def __init__(self, config: TransformerConfig, scale: float, *, rngs: nnx.Rngs):
        self.heads, self.scale = config.heads, scale
        self.query = nnx.Linear(config.width, config.width, rngs=rngs)
        self.key = nnx.Linear(config.width, config.width, rngs=rngs)
        self.value = nnx.Linear(config.width, config.width, rngs=rngs)
        self.output = nnx.Linear(config.width, config.width, rngs=rngs)

    def __call__(
        self, hidden: Float[jax.Array, "n t d"], visible: Bool[jax.Array, "n 1 #t t"]
    ) -> Float[jax.Array, "n t d"]:
        n, t, d = hidden.shape
        query, key, value = (
            project(hidden).reshape(n, t, self.heads, d // self.heads) for project in (self.query, self.key, self.value)
        )
        scores = self.scale * jnp.einsum("nqhe,nkhe->nhqk", query, key)
        # The smallest finite number, not -inf: a row that sees no key becomes uniform, without NaN or gradient.
        scores = jnp.where(visible, scores, jnp.finfo(scores.dtype).min)
        mixed = jnp.einsum("nhqk,nkhe->nqhe", jax.nn.softmax(scores, axis=-1), value)
        return self.output(mixed.reshape(n, t, d))


class MLP(nnx.Module):
    """Feed-forward network: down(activation(up(h)))."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.activation = config.activation
        self.up = nnx.Linear(config.width, config.mlp_width, rngs=rngs)
        self.down = nnx.Linear(config.mlp_width, config.width, rngs=rngs)

    def __call__(self, hidden: Float[jax.Array, "n t d"]) -> Float[jax.Array, "n t d"]:
        return self.down(ACTIVATIONS[self.activation](self.up(hidden)))


class Block(nnx.Module):
    """Attention and MLP, each with its residual sum and LayerNorm (the formulas at the top of this file)."""

    def __init__(self, config: TransformerConfig, scale: float, *, rngs: nnx.Rngs):
        self.norm_first = config.norm_first
        self.attention = Attention(config, scale, rngs=rngs)
        self.attention_norm = _norm(config, rngs)
        self.mlp = MLP(config, rngs=rngs)
        self.mlp_norm = _norm(config, rngs)

    def __call__(
        self, hidden: Float[jax.Array, "n t d"], visible: Bool[jax.Array, "n 1 #t t"]
    ) -> Float[jax.Array, "n t d"]:
        if self.norm_first:
            hidden = hidden + self.attention(self.attention_norm(hidden), visible)
            return hidden + self.mlp(self.mlp_norm(hidden))
        hidden = self.attention_norm(hidden + self.attention(hidden, visible))
        return self.mlp_norm(hidden + self.mlp(hidden))


class LMHead(nnx.Module):
    """Logits over the vocabulary: an optional transform, then a decoder that may be the token embedding."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        transform, d, v = config.lm_head_transform, config.width, config.vocab_size
        self.activation = config.activation
        self.dense = nnx.Linear(d, d, rngs=rngs) if transform else None
        self.norm = _norm(config, rngs) if transform else None
        kernel = nnx.initializers.lecun_normal()
        self.kernel = None if config.lm_head_tied else nnx.Param(kernel(rngs.params(), (d, v), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(v, jnp.float32)) if config.lm_head_bias else None

    def __call__(self, hidden: Float[jax.Array, "n d"], token: Float[jax.Array, "v d"]) -> Float[jax.Array, "n v"]:
        if self.dense is not None and self.norm is not None:
            hidden = self.norm(ACTIVATIONS[self.activation](self.dense(hidden)))
        logits = hidden @ (token.T if self.kernel is None else self.kernel[...])
        return logits if self.bias is None else logits + self.bias[...][None]


class Transformer(nnx.Module):
    """Token ids to hidden states `[n, t, d]`; with its component also to pooled states or to logits.

    `components` names the optional parts to build, of "pooler" and "lm_head"; a part that is not built has no
    parameters, so kernels never count weights that the output does not depend on.
    """

    def __init__(self, config: TransformerConfig, components: tuple[str, ...], *, rngs: nnx.Rngs):
        self.causal = config.causal
        self.embeddings = Embeddings(config, rngs=rngs)
        self.layers = nnx.List([Block(config, scale, rngs=rngs) for scale in config.attention_scale])
        self.final_norm = _norm(config, rngs) if config.final_norm else None
        self.pooler = nnx.Linear(config.width, config.width, rngs=rngs) if "pooler" in components else None
        self.lm_head = LMHead(config, rngs=rngs) if "lm_head" in components else None

    def __call__(self, inputs: Mapping[str, Int[Array, "n t"]]) -> Float[jax.Array, "n t d"]:
        """Hidden states after the last block; those at padded positions are finite and mean nothing.

        `inputs` holds `input_ids`, `attention_mask` (1: real, 0: padding) and optionally `token_type_ids` (absent:
        zeros), which a model without token types does not read. Cost: 2 FLOPs per token and weight, and 4 t² d per
        layer and example.
        """
        ids = jnp.asarray(inputs["input_ids"])
        mask = jnp.asarray(inputs["attention_mask"]) != 0
        token_types = inputs.get("token_type_ids")
        token_types = jnp.zeros_like(ids) if token_types is None else jnp.asarray(token_types)
        visible = mask[:, None, None, :]
        if self.causal:
            visible = visible & jnp.tri(ids.shape[1], dtype=bool)[None, None]
        hidden = self.embeddings(ids, mask, token_types)
        for layer in self.layers:
            hidden = layer(hidden, visible)
        return hidden if self.final_norm is None else self.final_norm(hidden)

    def pool(self, first: Float[jax.Array, "n d"]) -> Float[jax.Array, "n d"]:
        """The pooler of the checkpoint on the hidden states of the first tokens; needs the component "pooler"."""
        assert self.pooler is not None
        return jnp.tanh(self.pooler(first))

    def logits(self, hidden: Float[jax.Array, "n d"]) -> Float[jax.Array, "n v"]:
        """Scores of the vocabulary at given hidden states; needs the component "lm_head"."""
        assert self.lm_head is not None
        return self.lm_head(hidden, self.embeddings.token[...])


def _norm(config: TransformerConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The fast variance, E[x²] - E[x]², loses half of the digits when the mean is large.
    return nnx.LayerNorm(config.width, epsilon=config.norm_epsilon, use_fast_variance=False, rngs=rngs)


def _table(rows: int, config: TransformerConfig, rngs: nnx.Rngs) -> nnx.Param:
    draw = nnx.initializers.normal(stddev=config.width**-0.5)
    return nnx.Param(draw(rngs.params(), (rows, config.width), jnp.float32))


def _look_up(table: nnx.Param, rows: Int[jax.Array, "n t"]) -> jax.Array:
    # A row outside the table yields NaN, which is refused later, where clipping would yield a wrong number.
    return jnp.take(table[...], rows, axis=0, mode="fill", fill_value=jnp.nan)
