"""What a transformer is: its shape, and the variant of every part.

No field has a default: each one changes the function. Families (`ntkft.models.families`) fill it from a `config.json`.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from ntkft._errors import InputError, refuse
from ntkft.models.rotary import Rotary

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

BlockKind: TypeAlias = Literal["post_norm", "pre_norm", "parallel"]
NormKind: TypeAlias = Literal["layer", "rms"]


@dataclass(frozen=True)
class Tokens:
    """The front end of a language model: token ids to states, through tables."""

    vocab_size: int
    width: int
    """Of the token table. Where the blocks are wider or narrower, a projection leads in and another one out again."""
    max_positions: int
    """The longest sequence."""
    position_offset: int | None
    """Rows of the position table before that of the first token; None: there is no table."""
    token_types: int
    """Rows of the token-type table; 0: there is none."""
    norm: bool


@dataclass(frozen=True)
class Patches:
    """The front end of a vision model: an image cut into patches, each projected, behind a class token."""

    image: tuple[int, int]
    """Height and width in pixels."""
    patch: tuple[int, int]
    channels: int

    @property
    def grid(self) -> tuple[int, int]:
        """Patches below and beside each other."""
        return self.image[0] // self.patch[0], self.image[1] // self.patch[1]


@dataclass(frozen=True)
class LMHead:
    """Logits over the vocabulary."""

    transform: str | None
    """Activation of a dense layer with LayerNorm before the decoder (BERT); None: there is no such layer."""
    bias: bool
    tied: bool
    """The decoder is the token table."""


@dataclass(frozen=True)
class Classifier:
    """The head of a checkpoint fine-tuned to classify sequences."""

    labels: int
    state: Literal["pooler", "first", "last"]
    """What it reads: the pooler's output, or the hidden state of the first or last real token."""
    dense: bool
    """tanh of a dense layer before the output layer (RoBERTa)."""
    bias: bool


@dataclass(frozen=True)
class TransformerConfig:
    """Shape and variant of a `Transformer`. Raises `InputError` listing every field that is out of range."""

    front: Tokens | Patches
    width: int
    layers: int
    heads: int
    kv_heads: int
    """Heads of keys and values; each serves heads/kv_heads queries."""
    head_width: int
    mlp_width: int
    activation: str
    """A key of `ACTIVATIONS`."""
    gated: bool
    """down(activation(gate(h)) · up(h)) in place of down(activation(up(h)))."""
    block: BlockKind
    """Where norms and residual sums are (the formulas of `ntkft.models.transformer`)."""
    norm: NormKind
    norm_epsilon: float
    final_norm: bool
    causal: bool
    windows: tuple[int | None, ...]
    """One per layer: how many tokens back a query sees, itself included; None: all of them."""
    attention_scale: tuple[float, ...]
    """One per layer: factor on the scores q·k."""
    rotary: Rotary | None
    qk_norm: bool
    """Norm of every head's query and key before they turn (Qwen3)."""
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    pooler: bool
    """Whether the architecture has a pooler: tanh of a dense layer on the first token."""
    lm_head: LMHead | None
    classifier: Classifier | None

    @property
    def tokens(self) -> Tokens:
        """The front end of a language model; raises `InputError` for a vision model."""
        if isinstance(self.front, Tokens):
            return self.front
        raise InputError("this model reads images: it has no vocabulary and no sequences of tokens")

    @property
    def hidden_width(self) -> int:
        """Width of the hidden states that readouts see."""
        return self.front.width if isinstance(self.front, Tokens) else self.width

    @property
    def components(self) -> tuple[str, ...]:
        """The optional parts that the architecture has."""
        has = {"pooler": self.pooler, "lm_head": self.lm_head is not None, "classifier": self.classifier is not None}
        return tuple(name for name, there in has.items() if there)

    def __post_init__(self):
        problems = _size_problems(self, {})
        problems += _size_problems(self.front, {"token_types": 0})
        if self.kv_heads > 0 and self.heads % self.kv_heads:
            problems.append(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        for name in ("attention_scale", "windows"):
            if len(getattr(self, name)) != self.layers:
                problems.append(f"{name} has {len(getattr(self, name))} entries for {self.layers} layers")
        problems += [
            f"a window is {window}; it must be at least 1"
            for window in set(self.windows)
            if window is not None and window < 1
        ]
        problems += [
            f"{name} is {value!r}; supported: {', '.join(supported)}"
            for name, value, supported in (
                ("activation", self.activation, ACTIVATIONS),
                ("block", self.block, get_args(BlockKind)),
                ("norm", self.norm, get_args(NormKind)),
            )
            if value not in supported
        ]
        if not 0 <= self.norm_epsilon < 1:
            problems.append(f"norm_epsilon is {self.norm_epsilon}; it must be in [0, 1)")
        if self.rotary is not None and (self.rotary.width > self.head_width or self.rotary.width % 2):
            problems.append(
                f"rotary width is {self.rotary.width}; it must be even and at most head_width {self.head_width}"
            )
        if isinstance(self.front, Patches) and any(
            side < 1 or length < 1 or length % side
            for length, side in zip(self.front.image, self.front.patch, strict=True)
        ):
            problems.append(
                f"an image of {self.front.image} pixels is not a whole number of patches of {self.front.patch}"
            )
        refuse("TransformerConfig", problems)


def _size_problems(record: TransformerConfig | Tokens | Patches, smallest: dict[str, int]) -> list[str]:
    sizes = {field.name: getattr(record, field.name) for field in fields(record) if field.type is int}
    return [
        f"{name} is {size}; it must be at least {smallest.get(name, 1)}"
        for name, size in sizes.items()
        if size < smallest.get(name, 1)
    ]
