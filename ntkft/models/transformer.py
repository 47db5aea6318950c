"""One transformer for every supported checkpoint; what differs between families is configuration.

With hidden states h, attention A, feed-forward network M and norms N, a block computes

    post_norm (BERT):    a = N(h + A(h)),   h' = N(a + M(a))
    pre_norm (GPT-2):    a = h + A(N(h)),   h' = a + M(N(a))
    parallel (GPT-NeoX): h' = h + A(N(h)) + M(N(h)), each with a norm of its own

and attention, per head, softmax(c Q Kᵀ) V over the keys that a query may see (Vaswani et al. 2017, eq. 1), with the
scale c of the checkpoint. Everything runs in the dtype of the parameters, so that float64 stays float64; only scores
with their softmax, rotary angles and the statistics of norms are never taken below float32.

Position ids count the real tokens before a token. For right padding these are 0..t-1, as in the reference
implementations; for left padding the count, unlike the column number, keeps padding without influence.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int, Num

from ntkft._types import Array
from ntkft.models.config import ACTIVATIONS, Classifier, LMHead, Patches, Tokens, TransformerConfig
from ntkft.models.rotary import Turn, turn_at, turned


class TokenEmbeddings(nnx.Module):
    """Sum of token, position and token-type embeddings, as far as the model has them, then an optional norm."""

    def __init__(self, front: Tokens, config: TransformerConfig, *, rngs: nnx.Rngs):
        width = config.width
        self.offset = front.position_offset or 0
        self.token = _table(front.vocab_size, front.width, rngs)
        self.project = None if front.width == width else nnx.Linear(front.width, width, use_bias=False, rngs=rngs)
        rows = front.max_positions + self.offset
        self.position = None if front.position_offset is None else _table(rows, width, rngs)
        self.token_type = _table(front.token_types, width, rngs) if front.token_types else None
        self.norm = _norm(config, width, rngs) if front.norm else None

    def __call__(
        self, ids: Int[jax.Array, "n t"], positions: Int[jax.Array, "n t"], token_types: Int[jax.Array, "n t"]
    ) -> Float[jax.Array, "n t d"]:
        hidden = _look_up(self.token, ids)
        if self.project is not None:
            hidden = self.project(hidden)
        if self.position is not None:
            hidden += _look_up(self.position, positions + self.offset)
        if self.token_type is not None:
            hidden += _look_up(self.token_type, token_types)
        return hidden if self.norm is None else self.norm(hidden)


class PatchEmbeddings(nnx.Module):
    """A class token, then the projected patches of an image row by row; positions are added to all."""

    def __init__(self, front: Patches, config: TransformerConfig, *, rngs: nnx.Rngs):
        (rows, columns), (high, wide) = front.grid, front.patch
        self.front = front
        self.patch = nnx.Linear(front.channels * high * wide, config.width, rngs=rngs)
        self.first = _table(1, config.width, rngs)
        self.position = _table(1 + rows * columns, config.width, rngs)

    def __call__(self, pixels: Float[jax.Array, "n c y x"]) -> Float[jax.Array, "n t d"]:
        n, channels, *_ = pixels.shape
        (rows, columns), (high, wide) = self.front.grid, self.front.patch
        cut = pixels.reshape(n, channels, rows, high, columns, wide).transpose(0, 2, 4, 1, 3, 5)
        hidden = self.patch(cut.reshape(n, rows * columns, channels * high * wide))
        first = jnp.broadcast_to(self.first[...], (n, *self.first[...].shape))
        return jnp.concatenate([first, hidden], axis=1) + self.position[...][None]


class Attention(nnx.Module):
    """Multi-head attention with separate query, key and value kernels; a key head may serve several query heads."""

    def __init__(self, config: TransformerConfig, scale: float, *, rngs: nnx.Rngs):
        self.heads, self.kv_heads, self.scale = config.heads, config.kv_heads, scale
        inner, shared = config.heads * config.head_width, config.kv_heads * config.head_width
        self.query = nnx.Linear(config.width, inner, use_bias=config.qkv_bias, rngs=rngs)
        self.key = nnx.Linear(config.width, shared, use_bias=config.qkv_bias, rngs=rngs)
        self.value = nnx.Linear(config.width, shared, use_bias=config.qkv_bias, rngs=rngs)
        self.output = nnx.Linear(inner, config.width, use_bias=config.output_bias, rngs=rngs)
        self.query_norm = _norm(config, config.head_width, rngs) if config.qk_norm else None
        self.key_norm = _norm(config, config.head_width, rngs) if config.qk_norm else None

    def __call__(
        self, hidden: Float[jax.Array, "n t d"], visible: Bool[jax.Array, "#n 1 #t #t"], turn: Turn | None
    ) -> Float[jax.Array, "n t d"]:
        n, t, _ = hidden.shape
        query, key, value = (project(hidden) for project in (self.query, self.key, self.value))
        query = query.reshape(n, t, self.heads, -1)
        key, value = (states.reshape(n, t, self.kv_heads, -1) for states in (key, value))
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if turn is not None:
            query, key = turned(query, turn), turned(key, turn)
        if self.kv_heads != self.heads:
            key, value = (jnp.repeat(states, self.heads // self.kv_heads, axis=2) for states in (key, value))
        wide = jnp.promote_types(query.dtype, jnp.float32)
        scores = self.scale * jnp.einsum("nqhe,nkhe->nhqk", query, key, preferred_element_type=wide)
        # The smallest finite number, not -inf: a row that sees no key becomes uniform, without NaN or gradient.
        scores = jnp.where(visible, scores, jnp.finfo(scores.dtype).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        return self.output(jnp.einsum("nhqk,nkhe->nqhe", weights, value).reshape(n, t, -1))


class MLP(nnx.Module):
    """Feed-forward network: down(activation(up(h))), or gated, down(activation(gate(h)) · up(h))."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.activation = config.activation
        bias = config.mlp_bias
        self.up = nnx.Linear(config.width, config.mlp_width, use_bias=bias, rngs=rngs)
        self.gate = nnx.Linear(config.width, config.mlp_width, use_bias=bias, rngs=rngs) if config.gated else None
        self.down = nnx.Linear(config.mlp_width, config.width, use_bias=bias, rngs=rngs)

    def __call__(self, hidden: Float[jax.Array, "n t d"]) -> Float[jax.Array, "n t d"]:
        activation = ACTIVATIONS[self.activation]
        if self.gate is None:
            return self.down(activation(self.up(hidden)))
        return self.down(activation(self.gate(hidden)) * self.up(hidden))


class Block(nnx.Module):
    """Attention and MLP, with residual sums and norms (the formulas at the top of this file)."""

    def __init__(self, config: TransformerConfig, scale: float, *, rngs: nnx.Rngs):
        self.kind = config.block
        self.attention = Attention(config, scale, rngs=rngs)
        self.attention_norm = _norm(config, config.width, rngs)
        self.mlp = MLP(config, rngs=rngs)
        self.mlp_norm = _norm(config, config.width, rngs)

    def __call__(
        self, hidden: Float[jax.Array, "n t d"], visible: Bool[jax.Array, "#n 1 #t #t"], turn: Turn | None
    ) -> Float[jax.Array, "n t d"]:
        if self.kind == "post_norm":
            hidden = self.attention_norm(hidden + self.attention(hidden, visible, turn))
            return self.mlp_norm(hidden + self.mlp(hidden))
        attended = hidden + self.attention(self.attention_norm(hidden), visible, turn)
        return attended + self.mlp(self.mlp_norm(hidden if self.kind == "parallel" else attended))


class Decoder(nnx.Module):
    """Logits over the vocabulary: an optional transform, then a decoder that may be the token table."""

    def __init__(self, head: LMHead, config: TransformerConfig, *, rngs: nnx.Rngs):
        d, v = config.hidden_width, config.tokens.vocab_size
        self.transform = head.transform
        self.dense = nnx.Linear(d, d, rngs=rngs) if head.transform else None
        self.norm = _norm(config, d, rngs) if head.transform else None
        kernel = nnx.initializers.lecun_normal()
        self.kernel = None if head.tied else nnx.Param(kernel(rngs.params(), (d, v), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(v, jnp.float32)) if head.bias else None

    def __call__(self, hidden: Float[jax.Array, "n d"], token: Float[jax.Array, "v d"]) -> Float[jax.Array, "n v"]:
        if self.dense is not None and self.norm is not None and self.transform is not None:
            hidden = self.norm(ACTIVATIONS[self.transform](self.dense(hidden)))
        logits = hidden @ (token.T if self.kernel is None else self.kernel[...])
        return logits if self.bias is None else logits + self.bias[...][None]


class ClassifierHead(nnx.Module):
    """The checkpoint's own classes: an optional dense layer with tanh, then one output per label."""

    def __init__(self, head: Classifier, config: TransformerConfig, *, rngs: nnx.Rngs):
        d = config.hidden_width
        self.dense = nnx.Linear(d, d, rngs=rngs) if head.dense else None
        self.output = nnx.Linear(d, head.labels, use_bias=head.bias, rngs=rngs)

    def __call__(self, state: Float[jax.Array, "n d"]) -> Float[jax.Array, "n k"]:
        return self.output(state if self.dense is None else jnp.tanh(self.dense(state)))


class Transformer(nnx.Module):
    """Inputs to hidden states `[n, t, d]`; with its component also to pooled states, logits or classes.

    `components` names the optional parts to build, of "pooler", "lm_head" and "classifier"; a part that is not built
    has no parameters, so kernels never count weights that the output does not depend on.
    """

    def __init__(self, config: TransformerConfig, components: tuple[str, ...], *, rngs: nnx.Rngs):
        self.causal, self.windows, self.rotary = config.causal, config.windows, config.rotary
        front, width = config.front, config.width
        if isinstance(front, Patches):
            self.embeddings: TokenEmbeddings | PatchEmbeddings = PatchEmbeddings(front, config, rngs=rngs)
        else:
            self.embeddings = TokenEmbeddings(front, config, rngs=rngs)
        self.layers = nnx.List([Block(config, scale, rngs=rngs) for scale in config.attention_scale])
        self.final_norm = _norm(config, width, rngs) if config.final_norm else None
        hidden = config.hidden_width
        self.project = None if hidden == width else nnx.Linear(width, hidden, use_bias=False, rngs=rngs)
        head, classes = config.lm_head, config.classifier
        pooled = "pooler" in components or ("classifier" in components and classes and classes.state == "pooler")
        self.pooler = nnx.Linear(hidden, hidden, rngs=rngs) if pooled else None
        self.lm_head = Decoder(head, config, rngs=rngs) if head and "lm_head" in components else None
        self.classifier = ClassifierHead(classes, config, rngs=rngs) if classes and "classifier" in components else None

    def __call__(self, inputs: Mapping[str, Num[Array, "n ..."]]) -> Float[jax.Array, "n t d"]:
        """Hidden states after the last block; those at padded positions are finite and mean nothing.

        `inputs` are what `ntkft.models.inputs` describes; a model without token types does not read them. Cost:
        2 FLOPs per token and weight, and 4 t² per layer, example and feature of the heads.
        """
        embeddings = self.embeddings
        if isinstance(embeddings, PatchEmbeddings):
            hidden = embeddings(jnp.asarray(inputs["pixel_values"]).astype(embeddings.first[...].dtype))
            mask = jnp.ones(hidden.shape[:2], bool)
            positions = jnp.cumsum(mask, axis=1) - 1
        else:
            ids, mask = jnp.asarray(inputs["input_ids"]), jnp.asarray(inputs["attention_mask"]) != 0
            token_types = inputs.get("token_type_ids")
            token_types = jnp.zeros_like(ids) if token_types is None else jnp.asarray(token_types)
            positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
            hidden = embeddings(ids, positions, token_types)
        turn = None if self.rotary is None else turn_at(self.rotary, positions, hidden.dtype)
        visible = {window: _visible(mask, self.causal, window) for window in set(self.windows)}
        for layer, window in zip(self.layers, self.windows, strict=True):
            hidden = layer(hidden, visible[window], turn)
        if self.final_norm is not None:
            hidden = self.final_norm(hidden)
        return hidden if self.project is None else self.project(hidden)

    def pool(self, first: Float[jax.Array, "n d"]) -> Float[jax.Array, "n d"]:
        """The pooler of the checkpoint on the hidden states of the first tokens; needs the component "pooler"."""
        assert self.pooler is not None
        return jnp.tanh(self.pooler(first))

    def logits(self, hidden: Float[jax.Array, "n d"]) -> Float[jax.Array, "n v"]:
        """Scores of the vocabulary at given hidden states; needs the component "lm_head"."""
        assert self.lm_head is not None
        assert isinstance(self.embeddings, TokenEmbeddings)
        return self.lm_head(hidden, self.embeddings.token[...])

    def classify(self, state: Float[jax.Array, "n d"]) -> Float[jax.Array, "n k"]:
        """Scores of the checkpoint's own classes; needs the component "classifier"."""
        assert self.classifier is not None
        return self.classifier(state)


def _visible(mask: Bool[jax.Array, "n t"], causal: bool, window: int | None) -> Bool[jax.Array, "n 1 #t t"]:
    """Which keys each query sees."""
    visible = mask[:, None, None, :]
    if causal:
        visible = visible & jnp.tri(mask.shape[1], dtype=bool)[None, None]
    if window is not None:
        visible = visible & ~jnp.tri(mask.shape[1], k=-window, dtype=bool)[None, None]
    return visible


def _norm(config: TransformerConfig, width: int, rngs: nnx.Rngs) -> nnx.LayerNorm | nnx.RMSNorm:
    if config.norm == "rms":
        return nnx.RMSNorm(width, epsilon=config.norm_epsilon, rngs=rngs)
    # The fast variance, E[x²] - E[x]², loses half of the digits when the mean is large.
    return nnx.LayerNorm(width, epsilon=config.norm_epsilon, use_fast_variance=False, rngs=rngs)


def _table(rows: int, width: int, rngs: nnx.Rngs) -> nnx.Param:
    draw = nnx.initializers.normal(stddev=width**-0.5)
    return nnx.Param(draw(rngs.params(), (rows, width), jnp.float32))


def _look_up(table: nnx.Param, rows: Int[jax.Array, "n t"]) -> jax.Array:
    # A row outside the table yields NaN, which is refused later, where clipping would yield a wrong number.
    return jnp.take(table[...], rows, axis=0, mode="fill", fill_value=jnp.nan)
